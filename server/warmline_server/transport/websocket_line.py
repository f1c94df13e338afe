"""The asyncio protocol beneath a WebSocket: reads frames, pauses, and wakes the one reader.

Frames are taken from each TCP read all at once and handed on as a batch, so a fast stream costs one wake-up per
read. Whole text messages, compressed or not, are cut out here; every other frame is the library's to read. Reading
pauses when a batch is not fetched: back-pressure reaches the upstream's TCP window.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

from websockets.asyncio.client import ClientConnection
from websockets.client import ClientProtocol
from websockets.exceptions import WebSocketException
from websockets.frames import TEXT, Frame, Opcode
from websockets.protocol import Event, State

from warmline_server.clock import Clock
from warmline_server.core import failures
from warmline_server.core.errors import UpstreamFailure
from warmline_server.core.ws_header import COMPRESSED_TEXT, PLAIN_TEXT, frame_at
from warmline_server.transport import content_coding

# Read-ahead of one exchange: several times a TCP read, far below what would hurt with thousands of sockets.
READ_AHEAD_BYTES = 256 * 1024
# A larger frame is read by the library as it comes, so that no part of it is copied twice.
SMALL_FRAME_BYTES = 64 * 1024
_END_OF_HEAD = b"\r\n\r\n"
# Frames of one message; the largest message in frames of 1 KiB.
MAX_FRAGMENTS = 16 * 1024
# What a message costs here beside its bytes: without it a million empty ones would count as nothing.
MESSAGE_COST_BYTES = 64
# Pings whose answers wait because the peer does not read; real peers send one in many seconds.
MAX_WAITING_PONGS = 64
# How much the kernel may hold of our writes before a send waits.
WRITE_LIMIT_BYTES = 64 * 1024


class Owner(Protocol):
    """Whose connection it is."""

    on_ping: Callable[[], None] | None

    @property
    def has_exchange(self) -> bool:
        """Whether a response is being read."""

    def line_lost(self) -> None:
        """The connection is gone; told once."""

    def peer_closes(self) -> None:
        """The peer has said goodbye."""


class Line(ClientConnection):
    """One connection. `heard_at_s`: when the peer last sent anything; `peer_close_code`: None without a close frame."""

    def __init__(self, protocol: ClientProtocol, clock: Clock) -> None:
        super().__init__(protocol, ping_interval=None, ping_timeout=None, max_queue=None, write_limit=WRITE_LIMIT_BYTES)
        self._clock = clock
        self._socket: Owner | None = None
        self._frames: list[bytes] = []
        self._frames_bytes = 0
        self._unread = b""
        self._owed = 0
        self._small_frame_bytes = min(SMALL_FRAME_BYTES, protocol.max_message_size or SMALL_FRAME_BYTES)
        self._answer_end = b""
        self._received_bytes = 0
        self._inflated_bytes = 0
        self._judged_at_bytes = content_coding.UNJUDGED_BYTES
        self._waiting_pongs = 0
        self._parts: list[bytes] = []
        self._reading_paused = False
        self._failure: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._lost = False
        self.heard_at_s = clock.now_s()
        self.peer_close_code: int | None = None

    def attach(self, socket: Owner) -> None:
        if self._lost:
            self.loop.call_soon(socket.line_lost)
        else:
            self._socket = socket

    @property
    def is_open(self) -> bool:
        return (
            not self._lost
            and self._failure is None
            and self.protocol.state is State.OPEN
            and not self.transport.is_closing()
        )

    async def send_text(self, text: bytes) -> None:
        if not self.is_open:
            raise self._why_lost()
        self.protocol.send_text(text)
        self.send_data()
        try:
            await self.drain()
        except OSError as error:
            raise failures.stream_lost("failed to send websocket request") from error

    def send_ping(self) -> None:
        if self.is_open:
            self.protocol.send_ping(b"")
            self.send_data()

    def say_goodbye(self) -> None:
        self.protocol.send_close(1000)
        self.send_data()

    def abort(self) -> None:
        self.transport.abort()

    async def take_frames(self) -> list[bytes]:
        while not self._frames:
            if self._failure is not None:
                raise self._failure
            if self._lost:
                raise self._why_lost()
            self._waiter = self.loop.create_future()
            await self._waiter
        frames, self._frames, self._frames_bytes = self._frames, [], 0
        if self._reading_paused:
            self._resume()
        return frames

    def discard_frames(self) -> None:
        """What came after the terminal event belongs to nobody."""
        frames, self._frames, self._frames_bytes = self._frames, [], 0
        for frame in frames:
            self._idle_frame(frame)
        if self._reading_paused:
            self._resume()

    def _resume(self) -> None:
        self._reading_paused = False
        if self._failure is None:
            self._read(self._unread)
        self._note_bad_frame()
        if not self._reading_paused:
            self.transport.resume_reading()

    def _read(self, data: bytes) -> None:
        """Takes whole text messages out of `data`, and has the library read every other frame.

        Frame by frame, until enough waits: a small frame may inflate a thousandfold.
        """
        protocol, at, have = self.protocol, 0, len(data)
        while at < have and not self._reading_paused:
            if not self._owed:
                frame = frame_at(data, at)
                if frame is None:
                    break
                kind, start, end = frame
                mine = kind == PLAIN_TEXT or (kind == COMPRESSED_TEXT and protocol.extensions)
                if not mine or end - start > self._small_frame_bytes or protocol.current_size is not None:
                    self._owed = end - at
                elif end > have:
                    break
                elif kind == PLAIN_TEXT:
                    self._take_message(data[start:end])
                    at = end
                    continue
                else:
                    self._received_bytes += end - at
                    self._inflate(data[start:end])
                    at = end
            if self._owed:
                piece = data[at : at + self._owed]
                at += len(piece)
                self._owed -= len(piece)
                self._received_bytes += len(piece)
                super().data_received(piece)
            if self._failure is not None:  # what came with it is as lost as what comes after it
                at = have
            elif protocol.state is not State.OPEN:  # nothing is read any more: the rest is the library's to discard
                super().data_received(data[at:])
                at = have
        self._unread = data[at:]

    def _inflate(self, payload: bytes) -> None:
        """Takes a whole message, decoded by what the handshake agreed on.

        Its state is shared with the library, so frames must come here in order. What is wrong with one is thrown where
        the library would have met it, so that the connection ends as the library ends it.
        """
        protocol = self.protocol
        [deflate] = protocol.extensions
        try:
            # By place: a name costs each message half as much again as the frame.
            frame = deflate.decode(Frame(TEXT, payload, True, True), max_size=protocol.max_message_size)
        except WebSocketException as error:
            protocol.parser.throw(error)
        else:
            self._take_text(frame)

    def fail(self, error: Exception) -> None:
        if self._failure is None:
            self._failure = error
        self._wake()

    # What the library calls.

    def data_received(self, data: bytes) -> None:
        self.heard_at_s = self._clock.now_s()
        if self._failure is not None:
            return
        if self._unread:
            data, self._unread = self._unread + data, b""
        if self.protocol.state is State.OPEN:
            self._read(data)
        elif self.protocol.state is State.CONNECTING:
            self._read_answer(data)
        else:
            super().data_received(data)
        self._note_bad_frame()
        if self._frames or self._failure is not None:
            self._wake()

    def _read_answer(self, data: bytes) -> None:
        """Has the library read the handshake's answer, and no frame that came with its end."""
        seen = self._answer_end + data
        end = seen.find(_END_OF_HEAD)
        mine = len(data) if end < 0 else end + len(_END_OF_HEAD) - len(self._answer_end)
        self._answer_end = seen[-len(_END_OF_HEAD) + 1 :]
        super().data_received(data[:mine])
        if self.protocol.state is State.OPEN:
            self._read(data[mine:])
        elif mine < len(data):
            super().data_received(data[mine:])

    def _note_bad_frame(self) -> None:
        error = self.protocol.parser_exc
        if error is not None and self._failure is None:
            self._failure = failures.broke_protocol(f"bad websocket frame ({type(error).__name__})")

    def process_event(self, event: Event) -> None:
        if self.response is None or not isinstance(event, Frame):
            super().process_event(event)
        elif event.opcode is Opcode.TEXT or event.opcode is Opcode.CONT:
            self._take_text(event)
        elif event.opcode is Opcode.BINARY:
            self._take_binary()
        elif event.opcode is Opcode.PING:
            self._take_ping()
        elif event.opcode is Opcode.CLOSE:
            self._take_close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        if self.protocol.close_rcvd is not None:
            self.peer_close_code = self.protocol.close_rcvd.code
        super().connection_lost(exc)
        if self.protocol.parser_exc is not None:
            # Its frames hold the protocol, which holds it: a circle with the buffers of deflate.
            self.protocol.parser_exc.__traceback__ = None
        self._wake()
        if self._socket is not None:
            socket, self._socket = self._socket, None  # it holds this line: both would wait for the collector
            socket.line_lost()

    def _take_close(self) -> None:
        """A close frame is the end, though the peer may keep the connection for long."""
        if self._socket is None:
            return
        if self._socket.has_exchange:
            self.fail(self._why_lost())
        else:
            self._socket.peer_closes()

    def _take_ping(self) -> None:
        """The library has answered it; where the answers are not read, they would pile up without end."""
        waits = self.transport.get_write_buffer_size() > WRITE_LIMIT_BYTES
        self._waiting_pongs = self._waiting_pongs + 1 if waits else 0
        if self._waiting_pongs > MAX_WAITING_PONGS:
            self._refuse(f"more than {MAX_WAITING_PONGS} pings without reading their answers")
        elif self._socket is not None and self._socket.on_ping is not None:
            self._socket.on_ping()

    def _judge(self) -> None:
        """Looks now and then whether what inflates so much is of use to anybody."""
        self._judged_at_bytes = self._inflated_bytes + READ_AHEAD_BYTES
        if content_coding.is_bomb(self._received_bytes, self._inflated_bytes):
            self._refuse(f"websocket stream that inflates more than {content_coding.MAX_RATIO} times")

    def _refuse(self, what: str) -> None:
        """The peer does what no peer needs to do."""
        self.fail(failures.broke_protocol(what))
        self.abort()

    def _take_binary(self) -> None:
        """No upstream sends one: the exchange fails, and an idle socket is not one to keep."""
        if self._socket is not None and not self._socket.has_exchange:
            self.abort()
        else:
            self.fail(failures.broke_protocol("unexpected binary websocket event"))

    def _take_text(self, frame: Frame) -> None:
        data = bytes(frame.data)
        self._inflated_bytes += len(data)
        if self._inflated_bytes > self._judged_at_bytes:
            self._judge()
            if self._failure is not None:
                return
        if not frame.fin or self._parts:
            if len(self._parts) >= MAX_FRAGMENTS:
                self._refuse(f"websocket message in more than {MAX_FRAGMENTS} frames")
                return
            self._parts.append(data)
            if not frame.fin:
                return
            data = b"".join(self._parts)
            self._parts = []
        self._take_message(data)

    def _take_message(self, data: bytes) -> None:
        if self._socket is not None and not self._socket.has_exchange:
            self._idle_frame(data)
            return
        self._frames.append(data)
        self._frames_bytes += len(data) + MESSAGE_COST_BYTES
        if self._frames_bytes > READ_AHEAD_BYTES and not self._reading_paused:
            self._reading_paused = True
            self.transport.pause_reading()

    def _idle_frame(self, frame: bytes) -> None:
        """Notices (limits, timing) may trail a response; an error, or an event of one, means that it is out of step."""
        head = frame[:256]
        if b'"error"' in head or (b'"response.' in head and b'"response.metadata"' not in head):
            self.abort()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _why_lost(self) -> UpstreamFailure:
        return failures.stream_lost("websocket closed by server before response.completed")

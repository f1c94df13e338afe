"""Bytes of a stream, however they are cut: server-sent events, content codings, bodies of replies, WebSocket frames."""

import asyncio
import atexit
import base64
import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake
from websockets.frames import Frame, Opcode
from websockets.uri import parse_uri

from fuzz.checks import Take, cuts
from manual_clock import ManualClock
from warmline_server.core.errors import UpstreamFailure
from warmline_server.core.sse import SseDecoder
from warmline_server.transport import websocket, websocket_line
from warmline_server.transport.content_coding import _PIECE_BYTES, ContentDecoder
from warmline_server.transport.http_exchange import HttpExchange, HttpLimits, Reply

CODINGS = ("identity", "gzip", "deflate", "zstd")
SMALL = HttpLimits(read_ahead_bytes=2000, max_event_bytes=500)
MAX_MESSAGE_BYTES = 100_000
# The largest zstd block, and what a step of deflate may give.
LARGEST_PIECE_BYTES = max(_PIECE_BYTES, 2 * 128 * 1024)

Outcome = tuple[list[bytes], str]
"""What was read, and the failure's text (blank: none)."""


def check_sse(data: bytes) -> None:
    """Any cut gives the same events and the same failure; nothing held is larger than its limit."""
    take = Take(data)
    seed, limit = take.byte(), 16 + take.byte()
    stream = take.rest()
    whole = _sse([stream], limit)
    assert _sse(cuts(stream, seed), limit) == whole, "the events depend on how the bytes are cut"
    assert _sse(cuts(stream, 0), limit) == whole, "the events depend on how the bytes are cut"
    for event in whole[0]:
        assert len(event) <= limit


def _sse(pieces: Iterable[bytes], limit: int) -> tuple[list[bytes], str]:
    decoder = SseDecoder(limit, limit)
    events = [event for piece in pieces for event in decoder.feed(piece)]
    events += decoder.end()
    return events, decoder.failure.text if decoder.failure is not None else ""


def check_content_coding(data: bytes) -> None:
    """Any cut gives the same content, in bounded pieces, within the limit, or one UpstreamFailure."""
    take = Take(data)
    coding, seed = CODINGS[take.byte() % len(CODINGS)], take.byte()
    body = take.rest()
    whole = _decoded(coding, [body])
    for outcome in (_decoded(coding, cuts(body, seed)), _decoded(coding, cuts(body, 0))):
        # How much of a body came out before its failure depends on the pieces; what came out does not.
        shorter, longer = sorted((whole[0], outcome[0]), key=len)
        assert longer.startswith(shorter), "the content depends on how the bytes are cut"
        # One that is both broken and too large is refused for what is met first.
        assert bool(outcome[1]) == bool(whole[1]), "whether it fails depends on how the bytes are cut"
        assert outcome[1] or outcome == whole


def _decoded(coding: str, pieces: Iterable[bytes]) -> tuple[bytes, str]:
    decoder = ContentDecoder(coding, MAX_MESSAGE_BYTES)
    content = bytearray()
    try:
        for piece in pieces:
            for part in decoder.decode(piece):
                assert len(part) <= max(LARGEST_PIECE_BYTES, len(piece))
                content += part
    except UpstreamFailure as failure:
        return bytes(content), failure.text
    assert len(content) <= MAX_MESSAGE_BYTES
    return bytes(content), ""


def check_http(data: bytes) -> None:
    """An exchange over any reply gives events and then one UpstreamFailure, the same for any cut, within its limits."""
    take = Take(data)
    status = (200, 200, 200, 400, 429, 503)[take.byte() % 6]
    coding, seed = CODINGS[take.byte() % len(CODINGS)], take.byte()
    body = take.rest()
    headers = {"content-encoding": coding}
    whole = run(_exchange(status, headers, [body]))
    cut = run(_exchange(status, headers, list(cuts(body, seed))))
    if status == 200 or coding == "identity":
        _check_same(whole, cut)
    else:
        # Of a refusal's body that is broken on its way, as much is read as came whole; the refusal stays one.
        assert cut[0] == whole[0] == []


def replying(status: int, headers: dict[str, str], chunks: Iterable[bytes]) -> Callable[[], Awaitable[Reply]]:
    """Sends nothing, and gives this reply, whose body comes as fast as it is taken."""

    async def body() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    async def close() -> None:
        pass

    async def send() -> Reply:
        return Reply(status, headers, body(), close)

    return send


async def _exchange(status: int, headers: dict[str, str], chunks: list[bytes]) -> Outcome:
    exchange = HttpExchange(ManualClock(), SMALL)
    exchange.started(asyncio.create_task(exchange.run(replying(status, headers, chunks))))
    events: list[bytes] = []
    try:
        await exchange.opened()
        while True:
            events += await exchange.receive()
    except UpstreamFailure as failure:
        return events, failure.text


# What a peer may agree to.
NO_COMPRESSION = ""
DEFLATE = "permessage-deflate; client_max_window_bits=12"
DEFLATE_EACH = DEFLATE + "; server_no_context_takeover"


def check_websocket(data: bytes) -> None:
    """After any handshake and frames: messages, then one UpstreamFailure; the same for any cut; all within bounds.

    And what the library alone makes of the frames, up to what is refused here and not there.
    """
    take = Take(data)
    options = take.byte()
    garbled_head, reads = bool(options & 2), not options & 4
    compression = NO_COMPRESSION if not options & 1 else DEFLATE_EACH if options & 8 else DEFLATE
    seed = take.byte()
    stream = take.rest()
    whole = run(play([stream], compression, garbled_head, reads))
    cut = run(play(cuts(stream, seed), compression, garbled_head, reads))
    _check_same(whole, cut)
    if not garbled_head:
        _check_beside_library(whole, stream, compression)


# Of a frame's header, as many bytes as may come without the last one.
_PART_OF_HEADER_BYTES = 9


def _check_beside_library(found: Outcome, stream: bytes, compression: str) -> None:
    messages, told = _by_library(stream, compression)
    if "bad websocket frame" in found[1]:
        assert found == (messages, told), "a frame is read otherwise than by the library"
    elif "closed by server" in found[1]:
        assert found[0] == messages, "a frame is read otherwise than by the library"
        # A header is read when all of it is there; the library refuses one as soon as it can.
        assert found[1] in (told, _by_library(stream[:-_PART_OF_HEADER_BYTES], compression)[1])
    else:
        assert messages[: len(found[0])] == found[0], "a frame is read otherwise than by the library"


def _by_library(stream: bytes, compression: str) -> Outcome:
    """What `websockets` makes of a peer's frames without any code of ours."""
    protocol = _client_protocol(compression)
    protocol.send_request(protocol.connect())
    protocol.receive_data(answer(b"".join(protocol.data_to_send()), compression) + stream)
    [_, *events] = protocol.events_received()
    messages: list[bytes] = []
    parts: list[bytes] = []
    for event in events:
        assert isinstance(event, Frame)
        if event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            parts.append(bytes(event.data))
            if event.fin:
                messages.append(b"".join(parts))
                parts = []
    error = protocol.parser_exc
    if error is None:
        return messages, "websocket closed by server before response.completed"
    return messages, f"bad websocket frame ({type(error).__name__})"


def _check_same(whole: Outcome, cut: Outcome) -> None:
    if "inflates" in cut[1] + whole[1] or "claims to be" in cut[1] + whole[1]:
        # A bomb is judged by what has come so far, and of broken data zlib gives back nothing of the last read: which
        # event is the last depends on the reads, and nothing else.
        shorter, longer = sorted((cut[0], whole[0]), key=len)
        assert longer[: len(shorter)] == shorter
    else:
        assert cut == whole, "what is read depends on how the bytes are cut"


async def play(pieces: Iterable[bytes], compression: str, garbled_head: bool, reads: bool) -> Outcome:
    """Plays a peer that sends `pieces`, the first of them as the handshake's answer where `garbled_head`."""
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    line, wire = make_line(compression)
    shaking = asyncio.ensure_future(line.handshake())
    await asyncio.sleep(0)
    feed = iter(pieces)
    if not garbled_head:
        line.data_received(answer(bytes(wire.written), compression))
    else:
        while not shaking.done() and (piece := next(feed, None)) is not None:
            line.data_received(piece)
            await asyncio.sleep(0)
    if not shaking.done() and garbled_head:
        line.eof_received()
        wire.end()
    try:
        async with asyncio.timeout(5):
            await shaking
    except (InvalidHandshake, EOFError, OSError) as error:
        # What is made of a refusal's head and body is the business of another check.
        wire.end()
        return [], type(error).__name__
    outcome = await _messages(line, wire, feed, reads)
    assert not faults, faults
    return outcome


async def _messages(line: Any, wire: "Wire", feed: Iterable[bytes], reads: bool) -> Outcome:
    socket = websocket.WebSocket(line, "connection-1", ManualClock())
    wire.written.clear()
    wire.reads = reads
    exchange = await socket.send(b"{}", 1.0)
    got: list[bytes] = []
    told = ""
    for piece in feed:
        if wire.is_closing() or told:
            break
        line.data_received(piece)
        held = sum(map(len, line._frames)) + sum(map(len, line._parts))
        assert held <= websocket_line.READ_AHEAD_BYTES + 2 * MAX_MESSAGE_BYTES
        assert len(line._parts) <= websocket_line.MAX_FRAGMENTS
        while line._frames or line._failure is not None:
            try:
                got += await exchange.receive()
            except UpstreamFailure as failure:
                told = failure.text
                break
    if not told:
        line.eof_received()
        wire.end()
        try:
            while True:
                got += await exchange.receive()
        except UpstreamFailure as failure:
            told = failure.text
    socket.drop("over")
    wire.end()
    return got, told


def _client_protocol(compression: str) -> ClientProtocol:
    return ClientProtocol(
        parse_uri("ws://peer/v1/responses"),
        extensions=[websocket._DEFLATE] if compression else None,
        max_size=MAX_MESSAGE_BYTES,
    )


def make_line(compression: str) -> tuple[Any, "Wire"]:
    line = websocket_line.Line(_client_protocol(compression), ManualClock())
    wire = Wire(line)
    line.connection_made(wire)
    return line, wire


def answer(request: bytes, compression: str) -> bytes:
    """A right answer to a handshake."""
    key = re.search(rb"Sec-WebSocket-Key: (\S+)", request)
    assert key is not None, "a handshake has a key"
    guid = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    accept = base64.b64encode(hashlib.sha1(key[1] + guid, usedforsecurity=False).digest())
    head = b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + accept + b"\r\n"
    extension = f"Sec-WebSocket-Extensions: {compression}\r\n".encode() if compression else b""
    return head + extension + b"\r\n"


class Wire(asyncio.Transport):
    """A connection in memory. Its peer may stop reading: then what is written stays in the buffer."""

    def __init__(self, line: Any) -> None:
        super().__init__()
        self.written = bytearray()
        self.reads = True
        self._line = line
        self._closing = False
        self._ended = False

    def write(self, data: Any) -> None:
        self.written += data
        assert len(self.written) < 2 * 1024 * 1024, "what the peer does not read piles up"
        if self.reads:
            del self.written[:-1000]

    def get_write_buffer_size(self) -> int:
        return 0 if self.reads else len(self.written)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self._closing = True

    def abort(self) -> None:
        self._closing = True
        asyncio.get_running_loop().call_soon(self.end)

    def end(self) -> None:
        """The connection is gone."""
        self._closing = True
        if not self._ended:
            self._ended = True
            self._line.connection_lost(None)


_loops: list[asyncio.AbstractEventLoop] = []


def run(work: Any) -> Any:
    """Runs a coroutine on a loop that is kept: making one for each case takes longer than the case."""
    if not _loops:
        _loops.append(asyncio.new_event_loop())
        atexit.register(_loops[0].close)
    loop = _loops[0]
    try:
        return loop.run_until_complete(work)
    finally:
        if left := asyncio.all_tasks(loop):
            for task in left:
                task.cancel()
            loop.run_until_complete(asyncio.wait(left))


CHECKS: tuple[Callable[[bytes], None], ...] = (check_sse, check_content_coding, check_http, check_websocket)

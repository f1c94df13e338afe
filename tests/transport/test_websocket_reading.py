"""What arrives on a socket is the same whatever the reads were that brought it, and whoever read the frames."""

import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    ServerPerMessageDeflateFactory,
)
from websockets.frames import Close, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import Event
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from fuzz.make import frame
from manual_clock import ManualClock
from warmline_server.core.errors import UpstreamFailure
from warmline_server.transport import websocket
from warmline_server.transport.websocket import WebSocket
from warmline_server.transport.websocket_line import SMALL_FRAME_BYTES, Line

LIMIT = 200_000
LARGE = SMALL_FRAME_BYTES + 1


class Wire:
    """A transport that keeps what is written and notes pauses."""

    def __init__(self) -> None:
        self.written = b""
        self.paused = False
        self.aborted = False

    def write(self, data: bytes) -> None:
        self.written += data

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, *_args: object) -> None: ...

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def is_closing(self) -> bool:
        return self.aborted

    def can_write_eof(self) -> bool:
        return False

    def abort(self) -> None:
        self.aborted = True

    def close(self) -> None:
        self.aborted = True


class Peer:
    """Both ends of a socket, without one: the server's bytes go to the line in reads of any size."""

    def __init__(self, *, deflate: bool = False, each: bool = False) -> None:
        """`deflate`: both agree to compress; `each`: the server compresses each message by itself."""
        self.client = client = ClientProtocol(
            parse_uri("ws://upstream.test/"),
            extensions=[ClientPerMessageDeflateFactory()] if deflate else None,
            max_size=LIMIT,
        )
        offer = ServerPerMessageDeflateFactory(server_no_context_takeover=each)
        self.server = ServerProtocol(extensions=[offer] if deflate else None)
        self.wire = Wire()
        self.line = Line(client, ManualClock())
        transport: Any = self.wire
        self.line.connection_made(transport)
        client.send_request(client.connect())
        self.server.receive_data(b"".join(client.data_to_send()))
        [request] = self.server.events_received()
        assert isinstance(request, Request)
        self.server.send_response(self.server.accept(request))

    def text(self, text: bytes, parts: int = 1, *, ping: bool = False) -> None:
        """Sends a message in so many frames, with a ping before the last one."""
        size = -(-len(text) // parts) or 1
        pieces = [text[at : at + size] for at in range(0, len(text), size)] or [b""]
        for number, piece in enumerate(pieces):
            last = number == len(pieces) - 1
            if ping and last:
                self.server.send_ping(b"?")
            if number == 0:
                self.server.send_text(piece, fin=last)
            else:
                self.server.send_continuation(piece, fin=last)

    def arrives(self, cuts: Sequence[int]) -> "WebSocket":
        """Delivers all that the server sent, cut at these places. Returns: the socket, with an exchange under way."""
        data = b"".join(self.server.data_to_send())
        head = data.index(b"\r\n\r\n") + 4
        places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
        socket = None
        for start, end in pairwise(places):
            self.line.data_received(data[start:end])
            if socket is None and end >= head:
                socket = self.begin()
        assert socket is not None
        return socket

    def begin(self) -> WebSocket:
        socket = WebSocket(self.line, "connection", ManualClock())
        socket._exchange = websocket.WebSocketExchange(socket, self.line, socket._head)
        return socket

    def told(self, data: bytes) -> list[Event]:
        """What the server reads in what the client wrote."""
        self.server.receive_data(data)
        return self.server.events_received()

    async def messages(self, count: int) -> list[bytes]:
        """Takes so many messages, batch by batch."""
        found: list[bytes] = []
        while len(found) < count:
            found += await self.line.take_frames()
        return found


# Around every border of the length's three forms, and beyond what we read ourselves.
SIZES = st.sampled_from([0, 1, 125, 126, 127, 300, LARGE - 1, LARGE, 65_536])
MESSAGES = st.lists(st.tuples(SIZES, st.integers(1, 3), st.booleans()), min_size=1, max_size=8)
CUTS = st.lists(st.integers(0, 2**20), max_size=30)


@given(messages=MESSAGES, cuts=CUTS, deflate=st.booleans())
@settings(max_examples=150, deadline=None)
async def test_messages_are_the_same_however_they_are_read(
    messages: list[tuple[int, int, bool]], cuts: list[int], deflate: bool
) -> None:
    peer = Peer(deflate=deflate)
    sent = [bytes([65 + at % 26]) * size for at, (size, _, _) in enumerate(messages)]
    for text, (_, parts, ping) in zip(sent, messages, strict=True):
        peer.text(text, parts, ping=ping)

    peer.arrives(cuts)

    assert await peer.messages(len(sent)) == sent
    assert not peer.wire.paused
    assert peer.line.is_open


async def test_reading_stops_when_enough_waits_and_goes_on_where_it_stopped() -> None:
    peer = Peer()
    sent = [b"x" * 60_000 for _ in range(20)]
    for text in sent:
        peer.text(text)

    peer.arrives([])
    assert peer.wire.paused
    first = await peer.line.take_frames()

    assert len(first) < 8
    assert first + await peer.messages(len(sent) - len(first)) == sent
    assert not peer.wire.paused


async def test_small_frames_that_inflate_a_thousandfold_are_read_one_by_one() -> None:
    peer = Peer(deflate=True)
    sent = [b"0" * 150_000 for _ in range(50)]
    for text in sent:
        peer.text(text)

    peer.arrives([])

    assert peer.wire.paused
    assert len(await peer.line.take_frames()) == 2


def raw(head: int, length: int, payload: bytes = b"") -> bytes:
    """A frame that no library would send."""
    return bytes([head, length]) + payload


@pytest.mark.parametrize(
    "bad",
    [
        raw(0x81, 0x80 | 5, b"mask" + b"hello"),
        raw(0xC1, 5, b"hello"),
        raw(0x91, 5, b"hello"),
        raw(0x83, 5, b"hello"),
        raw(0x80, 5, b"hello"),
        raw(0x81, 127, (LIMIT + 1).to_bytes(8, "big")),
        raw(0x01, 5, b"hello") + raw(0x81, 5, b"world"),
    ],
    ids=["masked", "reserved bit", "other reserved bit", "opcode", "no message", "too large", "two messages at once"],
)
@pytest.mark.parametrize("cuts", [[], range(400)], ids=["at once", "byte by byte"])
async def test_bad_frame_fails_the_exchange_after_what_came_before(bad: bytes, cuts: Sequence[int]) -> None:
    peer = Peer()
    peer.text(b"before")
    peer.server.writes.append(bad)
    peer.text(b"after")

    peer.arrives(cuts)

    assert await peer.line.take_frames() == [b"before"]
    with pytest.raises(UpstreamFailure, match="bad websocket frame"):
        await peer.line.take_frames()
    assert not peer.line.is_open


async def test_nothing_is_read_after_the_peer_said_goodbye() -> None:
    peer = Peer()
    peer.text(b"last")
    peer.server.writes.append(Frame(Opcode.CLOSE, b"\x03\xe8").serialize(mask=False))
    peer.text(b"after")

    peer.arrives(range(400))

    assert await peer.line.take_frames() == [b"last"]
    with pytest.raises(UpstreamFailure):
        await peer.line.take_frames()


# Beside the library alone


class Deflater:
    """Compresses messages as a server does, all of them in one window or each by itself."""

    def __init__(self, *, each: bool) -> None:
        self._each = each
        self._encoder = zlib.compressobj(wbits=-15)

    def __call__(self, text: bytes) -> bytes:
        if self._each:
            self._encoder = zlib.compressobj(wbits=-15)
        return (self._encoder.compress(text) + self._encoder.flush(zlib.Z_SYNC_FLUSH))[:-4]


@dataclass(frozen=True)
class Sent:
    """A piece of a stream: one of `KINDS`, with a text of so many bytes, which shrinks to half of them."""

    kind: str
    size: int


def text_of(size: int) -> bytes:
    return random.Random(size).randbytes(size // 2 + 1).hex().encode()[:size]


def fragments(payload: bytes, *, rsv1: bool) -> bytes:
    at = len(payload) // 2
    return frame(1, payload[:at], fin=False, rsv1=rsv1) + frame(9, b"?") + frame(0, payload[at:])


KINDS: dict[str, Callable[[bytes, Deflater], bytes]] = {
    "plain": lambda text, _: frame(1, text),
    "compressed": lambda text, deflated: frame(1, deflated(text), rsv1=True),
    "fragments": lambda text, _: fragments(text, rsv1=False),
    "compressed fragments": lambda text, deflated: fragments(deflated(text), rsv1=True),
    "ping": lambda text, _: frame(9, text[:125]),
    "pong": lambda text, _: frame(10, text[:125]),
}
# After most of them nothing more is read.
ODD_KINDS: dict[str, Callable[[bytes, Deflater], bytes]] = {
    "corrupt": lambda text, _: frame(1, b"\xff" + text, rsv1=True),
    "corrupt within": lambda text, deflated: frame(1, deflated(text)[: len(text) // 3] + b"\xff" * 9, rsv1=True),
    "cut": lambda text, deflated: frame(1, deflated(text)[: len(text) // 3], rsv1=True),
    "ends itself": lambda text, _: frame(1, zlib.compress(text, wbits=-15) + b"more", rsv1=True),
    "nothing, compressed": lambda _, __: frame(1, b"", rsv1=True),
    "bomb": lambda _, deflated: frame(1, deflated(b"0" * (LIMIT + 1)), rsv1=True),
    "bomb in fragments": lambda _, deflated: fragments(deflated(b"0" * (LIMIT + 1)), rsv1=True),
    "compressed within a message": lambda text, deflated: (
        frame(1, text, fin=False) + frame(1, deflated(text), rsv1=True)
    ),
    "compressed continuation": lambda text, deflated: (
        frame(1, deflated(text), fin=False, rsv1=True) + frame(0, b"", rsv1=True)
    ),
    "compressed ping": lambda text, deflated: frame(9, deflated(text[:50]), rsv1=True),
    "other reserved bit": lambda text, deflated: b"\xe1" + frame(1, deflated(text), rsv1=True)[1:],
    "masked": lambda text, _: b"\xc1\x85mask" + text[:5],
    "close": lambda _, __: frame(8, b"\x03\xe8bye"),
    "opcode": lambda text, _: frame(3, text[:5]),
}
NUMBERS = st.one_of(st.sampled_from([0, 1, 125, 126, LARGE - 1, LARGE, LIMIT, LIMIT + 1]), st.integers(0, 6000))
STREAMS = st.lists(
    st.builds(Sent, st.one_of(*[st.sampled_from(sorted(KINDS))] * 4, st.sampled_from(sorted(ODD_KINDS))), NUMBERS),
    max_size=10,
)


def messages_of(events: Sequence[Event]) -> list[bytes]:
    found, parts = [], []
    for event in events:
        if isinstance(event, Frame) and event.opcode in (Opcode.TEXT, Opcode.CONT):
            parts.append(bytes(event.data))
            if event.fin:
                found.append(b"".join(parts))
                parts = []
    return found


async def all_messages(line: Line) -> list[bytes]:
    """What there is, and then nothing more."""
    found: list[bytes] = []
    while line._frames:
        found += await line.take_frames()
    return found


def end_of(client: ClientProtocol) -> tuple[object, ...]:
    error = client.parser_exc
    return client.state, client.close_sent, client.close_rcvd, type(error), str(error)


@given(stream=STREAMS, cuts=CUTS, deflate=st.booleans(), each=st.booleans())
@settings(max_examples=300, deadline=None)
async def test_stream_is_read_and_ends_as_the_library_alone_has_it(
    stream: list[Sent], cuts: list[int], deflate: bool, each: bool
) -> None:
    deflater = Deflater(each=each)
    data = b"".join((KINDS | ODD_KINDS)[sent.kind](text_of(sent.size), deflater) for sent in stream)
    peer, alone = Peer(deflate=deflate, each=each), Peer(deflate=deflate, each=each)
    alone.client.receive_data(b"".join(alone.server.data_to_send()) + data)

    peer.server.writes.append(data)
    peer.arrives(cuts)

    assert await all_messages(peer.line) == messages_of(alone.client.events_received())
    assert end_of(peer.client) == end_of(alone.client)
    assert peer.told(peer.wire.written) == alone.told(b"".join(alone.client.data_to_send()))


@pytest.mark.parametrize("each", [False, True], ids=["one window", "each by itself"])
@pytest.mark.parametrize(
    ("bad", "close"),
    [
        (Sent("bomb", 0), Close(1009, f"frame exceeds limit of {LIMIT} bytes")),
        (Sent("compressed", LIMIT + 1), Close(1009, f"frame exceeds limit of {LIMIT} bytes")),
        (Sent("corrupt", 100), Close(1002, "decompression failed")),
    ],
    ids=lambda value: value.kind if isinstance(value, Sent) else "",
)
async def test_compressed_message_that_is_bad_ends_the_socket(bad: Sent, close: Close, each: bool) -> None:
    deflater = Deflater(each=each)
    peer = Peer(deflate=True, each=each)
    before = KINDS["compressed"](b"before", deflater)
    after = KINDS["plain"](b"after", deflater)
    peer.server.writes.append(before + (KINDS | ODD_KINDS)[bad.kind](text_of(bad.size), deflater) + after)

    peer.arrives([])

    assert await peer.line.take_frames() == [b"before"]
    with pytest.raises(UpstreamFailure, match="bad websocket frame"):
        await peer.line.take_frames()
    [told] = peer.told(peer.wire.written)
    assert isinstance(told, Frame)
    assert (told.opcode, Close.parse(told.data)) == (Opcode.CLOSE, close)


@pytest.mark.parametrize("size", [LIMIT, SMALL_FRAME_BYTES])
async def test_compressed_message_of_the_largest_size_is_read(size: int) -> None:
    peer = Peer(deflate=True)
    peer.text(b"0" * size)

    peer.arrives([])

    assert await peer.line.take_frames() == [b"0" * size]


async def test_compressed_stream_of_any_length_is_read() -> None:
    peer = Peer(deflate=True)
    sent = [text_of(30_000 + number) for number in range(100)]
    for text in sent:
        peer.text(text)

    peer.arrives([])

    assert await peer.messages(len(sent)) == sent
    assert peer.line.is_open

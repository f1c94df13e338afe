"""What arrives on a socket is the same whatever the reads were that brought it, and whoever read the frames."""

from collections.abc import Sequence
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
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

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
        self.paused = False
        self.aborted = False

    def write(self, data: bytes) -> None: ...

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

    def __init__(self, *, deflate: bool = False) -> None:
        client = ClientProtocol(
            parse_uri("ws://upstream.test/"),
            extensions=[ClientPerMessageDeflateFactory()] if deflate else None,
            max_size=LIMIT,
        )
        self.server = ServerProtocol(extensions=[ServerPerMessageDeflateFactory()] if deflate else None)
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


def frame(head: int, length: int, payload: bytes = b"") -> bytes:
    """A frame that no library would send."""
    return bytes([head, length]) + payload


@pytest.mark.parametrize(
    "bad",
    [
        frame(0x81, 0x80 | 5, b"mask" + b"hello"),
        frame(0xC1, 5, b"hello"),
        frame(0x91, 5, b"hello"),
        frame(0x83, 5, b"hello"),
        frame(0x80, 5, b"hello"),
        frame(0x81, 127, (LIMIT + 1).to_bytes(8, "big")),
        frame(0x01, 5, b"hello") + frame(0x81, 5, b"world"),
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

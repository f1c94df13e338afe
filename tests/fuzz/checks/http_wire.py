"""The wire beneath httpcore: what goes past the library is what the library would have read."""

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Any

import httpcore

from fuzz.checks import Take, cuts
from fuzz.checks.streams import run
from warmline_server.transport import http_network

ORIGIN = httpcore.Origin(b"http", b"upstream", 80)
HEADERS = [(b"Host", b"upstream")]
GOOD_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def check_http_wire(data: bytes) -> None:
    """Any reply, cut anyhow, is the same content and the same ending, past the library or through it."""
    take = Take(data)
    options, seed = take.byte(), take.byte()
    reply = (b"" if options & 1 else GOOD_HEAD) + take.rest()
    expected = run(_read([reply], diverts=False))
    for pieces in ([reply], cuts(reply, seed), cuts(reply, 0)):
        assert run(_read(pieces, diverts=True)) == expected, "a diverted body is not what it is for the library"


async def _read(pieces: Iterable[bytes], *, diverts: bool) -> tuple[bytes, str]:
    """The content of a reply, and the error that ended it (blank: none)."""
    wire, transport = http_network.Wire(), Transport()
    wire.connection_made(transport)
    content = bytearray()

    async def request() -> None:
        connection = httpcore.AsyncHTTP11Connection(ORIGIN, wire)
        response = await connection.handle_async_request(httpcore.Request(b"GET", b"http://upstream/", headers=HEADERS))
        headers = {name.lower(): value for name, value in response.headers}
        wire.head_is_over()
        if diverts and headers.get(b"transfer-encoding", b"").lower() == b"chunked" and response.status == 200:
            wire.divert(content.extend)
        async for part in response.aiter_stream():
            content.extend(part)

    asking = asyncio.ensure_future(request())
    await asyncio.sleep(0)
    for piece in pieces:
        if asking.done():
            break
        wire.data_received(piece)
        assert len(wire._buffer) <= http_network.READ_AHEAD_BYTES + len(piece)
        await asyncio.sleep(0)
    wire.connection_lost(None)
    await asyncio.wait([asking], timeout=5)
    with contextlib.suppress(httpcore.RemoteProtocolError):
        await asking
        return bytes(content), ""
    return bytes(content), "cut" if "closed" in str(asking.exception()) else "garbled"


class Transport(asyncio.Transport):
    """Takes what is written, and nothing comes of it."""

    def write(self, data: Any) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        pass

"""A raw server whose every byte the test decides, and exchanges with it."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import pytest

from warmline_server.core.errors import UpstreamFailure
from warmline_server.transport.http import HttpTransport
from warmline_server.transport.http_exchange import HttpExchange, HttpLimits

T = TypeVar("T")

# Far more than any step here takes, far less than a hanging test may cost.
PATIENCE_S = 5.0

HEADERS = [("Accept", "text/event-stream"), ("Authorization", "Bearer k")]
LIMITS = HttpLimits(read_ahead_bytes=100_000, max_event_bytes=50_000, max_reply_bytes=10_000)
CONNECT_TIMEOUT_S = 15.0


@dataclass
class Request:
    line: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Peer:
    """One connection, as the server sees it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    number: int
    requests: list[Request] = field(default_factory=list)

    async def read_request(self) -> Request:
        """Raises: IncompleteReadError when the peer is gone."""
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:-2])}
        body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        request = Request(lines[0], headers, body)
        self.requests.append(request)
        return request

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def send_head(self, status: str = "200 OK", *headers: str, content_type: str = "text/event-stream") -> None:
        lines = [f"HTTP/1.1 {status}", f"Content-Type: {content_type}", *headers]
        if not any(header.lower().startswith("content-length") for header in headers):
            lines.append("Transfer-Encoding: chunked")
        self.send("\r\n".join([*lines, "", ""]).encode("latin-1"))

    def send_chunk(self, data: bytes) -> None:
        """A chunk of the body; the empty one ends it."""
        self.send(b"%x\r\n%b\r\n" % (len(data), data))

    async def wait_disconnected(self) -> None:
        """Waits until the other side has closed or cut the connection."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while await self.reader.read(65536):
                    pass
        except ConnectionError:
            pass


class RawServer:
    """Hands every connection to the test."""

    def __init__(self) -> None:
        self.port = 0
        self.peers: list[Peer] = []
        self._arrived: asyncio.Queue[Peer] = asyncio.Queue()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1/responses"

    async def accept(self) -> Peer:
        """The next connection."""
        async with asyncio.timeout(PATIENCE_S):
            return await self._arrived.get()

    async def take_request(self) -> Peer:
        """The next connection, its first request read."""
        peer = await self.accept()
        async with asyncio.timeout(PATIENCE_S):
            await peer.read_request()
        return peer

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer, len(self.peers) + 1)
        self.peers.append(peer)
        self._arrived.put_nowait(peer)


@asynccontextmanager
async def raw_server(tls: ssl.SSLContext | None = None) -> AsyncIterator[RawServer]:
    served = RawServer()
    server = await asyncio.start_server(served.connected, "127.0.0.1", 0, ssl=tls)
    served.port = server.sockets[0].getsockname()[1]
    try:
        yield served
    finally:
        server.close()
        for peer in served.peers:
            peer.writer.transport.abort()
        await server.wait_closed()


async def wait_until(condition: Callable[[], bool]) -> None:
    """Lets the loop run until `condition` holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  what is waited for has no event of its own
            await asyncio.sleep(0)


async def soon(awaitable: Awaitable[T]) -> T:
    """Fails a test that would hang."""
    async with asyncio.timeout(PATIENCE_S):
        return await awaitable


def opening(
    http: HttpTransport, url: str, body: bytes = b"{}", *, compress: bool = False
) -> asyncio.Task[HttpExchange]:
    return asyncio.create_task(http.open(url, HEADERS, body, compress=compress, connect_timeout_s=CONNECT_TIMEOUT_S))


async def open_stream(http: HttpTransport, server: RawServer, *headers: str) -> tuple[HttpExchange, Peer]:
    """An exchange whose head has come, and its server's side."""
    task = opening(http, server.url)
    peer = await server.take_request()
    peer.send_head("200 OK", *headers)
    return await soon(task), peer


async def finished_stream(http: HttpTransport, server: RawServer) -> Peer:
    """The server's side of an exchange that is over for us, and whose reply has no end yet."""
    exchange, peer = await open_stream(http, server)
    peer.send_chunk(event("response.completed"))
    await soon(exchange.receive())
    exchange.finish()
    return peer


def event(name: str) -> bytes:
    return b"event: x\ndata: " + json.dumps({"type": name}).encode() + b"\n\n"


async def refused(http: HttpTransport, server: RawServer, reply: bytes) -> UpstreamFailure:
    task = opening(http, server.url)
    peer = await server.take_request()
    peer.send(reply)
    with pytest.raises(UpstreamFailure) as caught:
        await soon(task)
    return caught.value


def whole(status: str, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body

"""A raw server whose every byte the test decides, and a clock that it turns by hand."""

import asyncio
import heapq
import itertools
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from warmline_server.clock import Timer

T = TypeVar("T")

# Far more than any step here takes, far less than a hanging test may cost.
PATIENCE_S = 5.0


class ManualClock:
    """Time stands still until `advance`. Its wall time is 1 January 2024."""

    def __init__(self) -> None:
        self._now_s = 1000.0
        self._order = itertools.count()
        self._timers: list[tuple[float, int, ManualTimer]] = []

    def now_s(self) -> float:
        return self._now_s

    def unix_ns(self) -> int:
        return 1_704_067_200_000_000_000

    def call_at(self, at_s: float, callback: Callable[[], object]) -> Timer:
        timer = ManualTimer(callback)
        heapq.heappush(self._timers, (at_s, next(self._order), timer))
        return timer

    def advance(self, duration_s: float) -> None:
        self._now_s += duration_s
        while self._timers and self._timers[0][0] <= self._now_s:
            timer = heapq.heappop(self._timers)[2]
            if timer.callback is not None:
                timer.callback()

    @property
    def armed(self) -> int:
        """Timers that wait."""
        return sum(timer.callback is not None for _, _, timer in self._timers)


class ManualTimer:
    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self.callback = None


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

"""A TCP proxy that misbehaves on request: between the server and its upstream, every fault that a network can show.

It knows nothing of HTTP or WebSocket. Each direction of each connection is a `Pipe` that passes bytes on until it is
told otherwise; what becomes of the connection itself is told to the `Link`.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable
from enum import Enum, auto

# SO_LINGER on with zero seconds: closing sends RST instead of FIN. Source: socket(7).
_LINGER_RESET = struct.pack("ii", 1, 0)
_READ_BYTES = 65536
# Far more than any wait here takes, far less than a run that hangs may cost.
_PATIENCE_S = 10.0


class Mode(Enum):
    """What a pipe does with bytes."""

    PASS = auto()
    HOLD = auto()
    """Keeps them until it passes again."""
    DROP = auto()
    """Swallows them."""
    TRICKLE = auto()
    """Passes one byte at a time, each in a write and a pass of the loop of its own."""
    CORRUPT = auto()
    """Damages the first bytes that come, then passes."""


class Pipe:
    """One direction of a link. `passed`: bytes that went through; `seen`: bytes that came."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.mode = Mode.PASS
        self.passed = 0
        self.seen = 0
        self._reader = reader
        self._writer = writer
        self._held = bytearray()
        self._left: int | None = None
        self._moved = asyncio.Event()
        self.exhausted: Callable[[], None] = lambda: None

    def cut_after(self, count: int, exhausted: Callable[[], None]) -> None:
        """Passes `count` more bytes, then calls `exhausted` and passes nothing more."""
        self._left, self.exhausted = count, exhausted

    async def release(self) -> None:
        """Passes on what is held, and whatever follows."""
        self.mode = Mode.PASS
        held, self._held = bytes(self._held), bytearray()
        await self._write(held)

    async def inject(self, data: bytes) -> None:
        """Bytes that nobody sent."""
        await self._write(data)

    async def until_passed(self, more_than: int) -> None:
        """Returns once more than that many bytes went through."""
        async with asyncio.timeout(_PATIENCE_S):
            while self.passed <= more_than:
                self._moved.clear()
                await self._moved.wait()

    async def until_seen(self, more_than: int) -> None:
        """Returns once more than that many bytes came, whatever becomes of them."""
        async with asyncio.timeout(_PATIENCE_S):
            while self.seen <= more_than:
                self._moved.clear()
                await self._moved.wait()

    async def run(self) -> None:
        """Moves bytes to the end of the stream. Raises: OSError when either side is gone."""
        while data := await self._reader.read(_READ_BYTES):
            self.seen += len(data)
            self._moved.set()
            match self.mode:
                case Mode.HOLD:
                    self._held += data
                case Mode.DROP:
                    pass
                case Mode.TRICKLE:
                    for byte in data:
                        await self._write(bytes((byte,)))
                        await asyncio.sleep(0)
                case Mode.CORRUPT:
                    self.mode = Mode.PASS
                    # Reserved bits of a frame's head, and no digit of a chunk's size or letter of a status line.
                    await self._write(bytes(byte ^ 0x70 for byte in data[:4]) + data[4:])
                case Mode.PASS:
                    await self._write(data)

    async def _write(self, data: bytes) -> None:
        if self._left is not None:
            data, spare = data[: self._left], data[self._left :]
            self._left -= len(data)
            self._put(data)
            await self._writer.drain()
            if spare or not self._left:
                self.mode = Mode.DROP
                self.exhausted()
            return
        self._put(data)
        await self._writer.drain()

    def _put(self, data: bytes) -> None:
        if data and not self._writer.is_closing():
            self._writer.write(data)
            self.passed += len(data)
            self._moved.set()


class Link:
    """A connection of the server's and, where the proxy made it, the one to the upstream that belongs to it."""

    def __init__(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.number = number
        self.reader, self.writer = reader, writer
        self.up: Pipe | None = None
        self.down: Pipe | None = None
        self.upstream: asyncio.StreamWriter | None = None
        self.on_joined: Callable[[], None] = lambda: None
        self.is_open = True
        self.swallowed = 0

    @property
    def pipes(self) -> tuple[Pipe, Pipe]:
        """Towards the upstream, and back. Only of a link that has its upstream."""
        assert self.up is not None, "the link never reached its upstream"
        assert self.down is not None, "pipes come in pairs"
        return self.up, self.down

    async def swallow(self) -> None:
        """Reads and forgets, until the server leaves."""
        while data := await self.reader.read(_READ_BYTES):
            self.swallowed += len(data)

    def reset(self) -> None:
        """RST, towards the server."""
        raw: socket.socket = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
        self.writer.transport.abort()

    def close(self) -> None:
        """FIN, towards the server; nothing is read from it any more."""
        self.writer.close()

    def half_close(self) -> None:
        """FIN towards the server, which may go on sending."""
        if self.down is not None:
            self.down.mode = Mode.DROP
        if not self.writer.is_closing():
            self.writer.write_eof()

    def drop(self) -> None:
        """Both sides, at once."""
        self.writer.transport.abort()
        if self.upstream is not None:
            self.upstream.transport.abort()


OnAccept = Callable[[Link], Awaitable[bool]]
"""Told of a new connection. Returns: whether it goes on to the upstream."""


class Proxy:
    """Listens on `port` and passes on to `target_port` of loopback. `on_accept`, where set, sees each link first."""

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self.links: list[Link] = []
        self.on_accept: OnAccept | None = None
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Proxy":
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.refuse()
        for link in self.links:
            link.drop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def listen(self) -> None:
        """Takes connections, at the same port as before. Harmless while it does."""
        if self._server is None:
            self._server = await asyncio.start_server(self._accepted, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Refuses connections from now on; those that stand go on."""
        if self._server is not None:
            self._server.close()
            self._server = None
            await asyncio.sleep(0)

    @property
    def open_links(self) -> list[Link]:
        """The links that the server holds open, oldest first."""
        return [link for link in self.links if link.is_open]

    async def heal(self) -> None:
        """Everything passes again."""
        self.on_accept = None
        await self.listen()
        for link in self.open_links:
            for pipe in (link.up, link.down):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        await pipe.release()

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = Link(len(self.links), reader, writer)
        self.links.append(link)
        task = asyncio.get_running_loop().create_task(self._serve(link), name=f"chaos link {link.number}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, link: Link) -> None:
        try:
            if self.on_accept is None or await self.on_accept(link):
                await self._join(link)
        except OSError:
            pass  # either side may leave whenever it likes
        finally:
            link.is_open = False
            # Who leaves is told to the other side, even through a blackhole: else nobody could close the books.
            link.drop()

    async def _join(self, link: Link) -> None:
        upstream_reader, link.upstream = await asyncio.open_connection("127.0.0.1", self._target_port)
        link.up = Pipe(link.reader, link.upstream)
        link.down = Pipe(upstream_reader, link.writer)
        link.on_joined()
        going_up = asyncio.ensure_future(link.up.run())
        going_down = asyncio.ensure_future(self._run_down(link))
        try:
            await going_up  # the server's leaving ends the link
        finally:
            going_down.cancel()
            await asyncio.gather(going_down, return_exceptions=True)

    async def _run_down(self, link: Link) -> None:
        """The upstream's end is passed on as it came, unless the pipe holds or swallows everything."""
        _, down = link.pipes
        try:
            await down.run()
        except ConnectionError:
            if down.mode in (Mode.PASS, Mode.TRICKLE):
                link.reset()
            return
        if down.mode in (Mode.PASS, Mode.TRICKLE):
            link.half_close()

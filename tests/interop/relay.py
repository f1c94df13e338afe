"""A TCP relay whose connections can fall silent: nothing comes through any more, and neither end is told."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_CHUNK_BYTES = 65536


class Relay:
    """Passes bytes between its callers and one server."""

    def __init__(self, target: str) -> None:
        self.address = ""
        self._target = target
        self._tasks: set[asyncio.Task[None]] = set()
        self._silent: set[asyncio.Task[None]] = set()

    def mute(self) -> None:
        """Silences the connections that there are, for good; later ones are passed on."""
        self._silent |= self._tasks

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one caller until either end closes, or the relay."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        host, _, port = self._target.rpartition(":")
        # Cancelled by `close` alone; asyncio's streams would report it as an error.
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            far_reader, far_writer = await asyncio.open_connection(host, int(port))
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._pump(task, reader, far_writer))
                    group.create_task(self._pump(task, far_reader, writer))
            finally:
                far_writer.close()
                writer.close()
                self._tasks.discard(task)

    async def close(self) -> None:
        """Ends every connection."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _pump(self, task: asyncio.Task[None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(_CHUNK_BYTES):
                if task not in self._silent:
                    writer.write(chunk)
                    await writer.drain()
        except ConnectionError:
            pass
        if task in self._silent:
            await asyncio.Event().wait()
        writer.close()


@asynccontextmanager
async def open_relay(target: str) -> AsyncIterator[Relay]:
    """Listens on a free port of loopback. Args: `target`: host and port of the server."""
    relay = Relay(target)
    server = await asyncio.start_server(relay.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    relay.address = f"{host}:{port}"
    try:
        yield relay
    finally:
        server.close()
        await relay.close()

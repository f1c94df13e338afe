"""One TCP connection: bytes in and out, back-pressure, every way of ending it. Knows nothing of HTTP or WebSocket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Protocol, cast

from warmline_simulator.state import State

_LINGER_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER on with zero seconds: closing sends RST instead of FIN. Source: socket(7)."""


class Side(Protocol):
    """What speaks on a connection: HTTP, then perhaps WebSocket."""

    def feed(self, data: bytes) -> None:
        """Bytes arrived."""

    def ended(self) -> None:
        """The peer will send no more."""

    def lost(self) -> None:
        """The connection is gone."""


class Wire(asyncio.Protocol):
    """The connection. Output is gathered by `put` and leaves with `flush`, so that many events share a packet."""

    def __init__(
        self,
        state: State,
        first_side: Callable[[Wire], Side],
        *,
        on_made: Callable[[Wire], None],
        on_lost: Callable[[Wire], None],
    ) -> None:
        """Args: `on_made` is not called for a connection whose TLS handshake fails, and neither is `on_lost`."""
        self.state = state
        self.id = f"conn_{state.counters.sockets_total}"
        self.side = first_side(self)
        self.is_lost = False
        self.pending_bytes = 0
        self.reset_after_bytes: int | None = None
        self.read_bytes_per_s: float | None = None
        self._on_made = on_made
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._is_stalled = False
        self._writable = asyncio.Event()
        self._writable.set()
        self._tasks: dict[asyncio.Task[None], Callable[[], None] | None] = {}
        self._lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._on_made(self)
        self.state.counters.sockets_total += 1
        self.state.counters.sockets_open += 1

    def data_received(self, data: bytes) -> None:
        self.state.counters.bytes_in += len(data)
        if self._is_stalled:
            return
        with self._faults_recorded():
            self.side.feed(data)
        if self.read_bytes_per_s is not None and self._transport is not None:
            self._transport.pause_reading()
            self.state.clock.call_later(len(data) / self.read_bytes_per_s, self._resume_reading)

    def _resume_reading(self) -> None:
        if self._transport is not None and not self.is_lost and not self._transport.is_closing():
            self._transport.resume_reading()

    def eof_received(self) -> bool | None:
        if not self._is_stalled:
            with self._faults_recorded():
                self.side.ended()
        return None

    @contextlib.contextmanager
    def _faults_recorded(self) -> Iterator[None]:
        """The event loop only logs what a protocol raises; the run must fail for it too."""
        try:
            yield
        except Exception as fault:
            self.state.faults.append(fault)
            raise

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        self._out.clear()
        self._writable.set()
        self._lost.set()
        self.state.counters.sockets_open -= 1
        self.side.lost()
        for task, given_up in self._tasks.items():
            if given_up is not None:
                given_up()
            task.cancel()
        self._on_lost(self)
        self.state.watch.notify()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def spawn(self, work: Coroutine[Any, Any, None], given_up: Callable[[], None] | None = None) -> None:
        """Run something that must not outlive the connection; an error in it fails the run.

        Args:
            given_up: called when the connection ends before the work does, also when the work never began.
        """
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[task] = given_up
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        fault = None if task.cancelled() else task.exception()
        if fault is not None:
            self.state.faults.append(fault)
            self.drop()

    def put(self, data: bytes) -> None:
        """Gather bytes for the next flush."""
        self._out.append(data)
        self.pending_bytes += len(data)

    def flush(self) -> None:
        """Hand what was gathered to the network."""
        if not self._out:
            return
        data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        self.pending_bytes = 0
        transport = self._transport
        if self.is_lost or self._is_stalled or transport is None or transport.is_closing():
            return
        if self.reset_after_bytes is None or len(data) < self.reset_after_bytes:
            self.state.counters.bytes_out += len(data)
            transport.write(data)
            if self.reset_after_bytes is not None:
                self.reset_after_bytes -= len(data)
            return
        self.state.counters.bytes_out += self.reset_after_bytes
        transport.write(data[: self.reset_after_bytes])
        self.drop()

    async def drain(self) -> None:
        """Return once the network takes more. Cancel: safe."""
        if not self._writable.is_set():
            await self._writable.wait()

    def close(self) -> None:
        """Send what is left, then end the connection."""
        self.flush()
        if self._transport is not None:
            self._transport.close()

    def drop(self) -> None:
        """Reset the connection at once."""
        self._out.clear()
        self.pending_bytes = 0
        if self._transport is None or self.is_lost:
            return
        raw = self._transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
        self._transport.abort()

    def stall(self) -> None:
        """Fall silent for good: nothing is read, answered or sent any more."""
        self.flush()
        self._is_stalled = True

    async def wait_until_lost(self) -> None:
        """Return once the connection is gone. Cancel: safe."""
        await self._lost.wait()
        if self._tasks:
            await asyncio.wait(self._tasks)

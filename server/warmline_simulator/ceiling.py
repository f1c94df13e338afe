"""How fast the simulator itself is: streams, events and connections per second, measured from another process.

The client counts bytes and terminal events and does nothing else, so that the simulator is what saturates; the printed
share of its CPU says whether it did.
"""

from __future__ import annotations

import asyncio
import base64
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import msgspec
from websockets.frames import Frame, Opcode

from warmline_simulator.eventloop import loop_factory

DONE = b'"type":"response.completed"'
EVENT = b'"sequence_number":'
LONGEST_MARK = max(len(DONE), len(EVENT))
"""So much of the end is looked at again with what comes next, less what it held whole."""
OPENING_LIMIT_S = 60.0
PACED_STREAMS = 400
PACE_S = 0.02


@dataclass(frozen=True, slots=True)
class Measured:
    """One figure of one phase."""

    name: str
    value: float
    unit: str
    cpu_share: float | None = None
    """CPU seconds of the simulator per second; None where the system does not tell."""

    def __str__(self) -> str:
        busy = "" if self.cpu_share is None else f"   (simulator's CPU {self.cpu_share:.0%})"
        return f"{self.name:<44} {self.value:>12,.0f} {self.unit}{busy}"


@dataclass(slots=True)
class _Tally:
    streams: int = 0
    events: int = 0
    received_bytes: int = 0


def _upgrade(host: str, port: int) -> bytes:
    key = base64.b64encode(os.urandom(16)).decode()
    return (
        f"GET /v1/responses HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


def _frame(words: int, pace_s: float = 0.0) -> bytes:
    metadata = {"sim_words": str(words), "sim_pace_s": str(pace_s)}
    body = {"type": "response.create", "model": "m", "input": "hello", "store": False, "metadata": metadata}
    return Frame(Opcode.TEXT, msgspec.json.encode(body)).serialize(mask=True)


def _post(host: str, port: int, words: int) -> bytes:
    metadata = {"sim_words": str(words)}
    body = msgspec.json.encode({"model": "m", "input": "hello", "store": False, "stream": True, "metadata": metadata})
    head = f"POST /v1/responses HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class _Looping(asyncio.Protocol):
    """Sends the request again whenever its answer is complete."""

    def __init__(self, opening: bytes, request: bytes, end: bytes, tally: _Tally) -> None:
        self._opening, self._request, self._end, self._tally = opening, request, end, tally
        self._tail = b""
        self._is_open = not opening
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._opening or self._request)

    def data_received(self, data: bytes) -> None:
        assert self.transport is not None
        if not self._is_open:
            self._is_open = True
            self.transport.write(self._request)
            return
        tally, tail = self._tally, self._tail
        joined = tail + data
        ends = joined.count(self._end) - tail.count(self._end)
        tally.received_bytes += len(data)
        tally.events += joined.count(EVENT) - tail.count(EVENT)
        self._tail = joined[-LONGEST_MARK + 1 :]
        if ends:
            tally.streams += ends
            self.transport.write(self._request * ends)


class _Process:
    """A simulator in a process of its own."""

    def __enter__(self) -> _Process:
        command = [sys.executable, "-m", "warmline_simulator", "--port", "0", "--keep-records", "0", "--no-compression"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 — this very package
        assert self._process.stdout is not None
        url = urlsplit(self._process.stdout.readline().split()[1])
        self.host, self.port = str(url.hostname), int(url.port or 0)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate(timeout=30)

    def cpu_s(self) -> float | None:
        """CPU seconds it used so far; None where /proc does not tell."""
        try:
            parts = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return (int(parts[11]) + int(parts[12])) / os.sysconf("SC_CLK_TCK")


async def _run_phase(
    process: _Process, seconds: float, connections: int, make: Callable[[_Tally], _Looping]
) -> tuple[_Tally, float, float | None]:
    """Let looping clients run; returns counts, the time they took and the simulator's CPU share."""
    loop, tally = asyncio.get_running_loop(), _Tally()
    clients = [
        (await loop.create_connection(lambda: make(tally), process.host, process.port))[1] for _ in range(connections)
    ]
    await asyncio.sleep(min(0.5, seconds / 4))
    before = (tally.streams, tally.events, tally.received_bytes, process.cpu_s(), time.perf_counter())
    await asyncio.sleep(seconds)
    cpu_s, elapsed_s = process.cpu_s(), time.perf_counter() - before[4]
    result = _Tally(tally.streams - before[0], tally.events - before[1], tally.received_bytes - before[2])
    for client in clients:
        if client.transport is not None:
            client.transport.abort()
    share = None if cpu_s is None or before[3] is None else (cpu_s - before[3]) / elapsed_s
    return result, elapsed_s, share


async def _measure_websocket(process: _Process, seconds: float) -> list[Measured]:
    measured = []
    for words in (20, 200):

        def make(tally: _Tally, words: int = words) -> _Looping:
            return _Looping(_upgrade(process.host, process.port), _frame(words), DONE, tally)

        tally, elapsed_s, share = await _run_phase(process, seconds, 32, make)
        measured.append(
            Measured(f"WebSocket, {words} words, 32 sockets", tally.streams / elapsed_s, "streams/s", share)
        )
        measured.append(Measured("", tally.events / elapsed_s, "events/s"))
    return measured


async def _measure_sse(process: _Process, seconds: float) -> list[Measured]:
    request = _post(process.host, process.port, 20)
    tally, elapsed_s, share = await _run_phase(
        process, seconds, 32, lambda tally: _Looping(b"", request, b"\r\n0\r\n\r\n", tally)
    )
    return [
        Measured("SSE, 20 words, 32 connections", tally.streams / elapsed_s, "streams/s", share),
        Measured("", tally.events / elapsed_s, "events/s"),
    ]


async def _measure_paced(process: _Process, seconds: float) -> list[Measured]:
    request = _frame(int(2 * seconds / PACE_S), PACE_S)
    tally, elapsed_s, share = await _run_phase(
        process, seconds, PACED_STREAMS,
        lambda tally: _Looping(_upgrade(process.host, process.port), request, DONE, tally),
    )  # fmt: skip
    wanted = PACED_STREAMS / PACE_S
    name = f"paced, {PACED_STREAMS} streams of {1 / PACE_S:.0f} words/s (ideal {wanted:,.0f})"
    return [Measured(name, tally.events / elapsed_s, "events/s", share)]


async def _measure_connections(process: _Process, limit: int) -> list[Measured]:
    loop, tally = asyncio.get_running_loop(), _Tally()
    upgrade, opened = _upgrade(process.host, process.port), asyncio.Semaphore(64)
    clients: list[_Opening] = []

    async def open_one() -> None:
        async with opened:
            client = (await loop.create_connection(lambda: _Opening(upgrade), process.host, process.port))[1]
            await client.is_open.wait()
            clients.append(client)

    before, start_s = process.cpu_s(), time.perf_counter()
    async with asyncio.timeout(OPENING_LIMIT_S):
        await asyncio.gather(*(open_one() for _ in range(limit)))
    elapsed_s, cpu_s = time.perf_counter() - start_s, process.cpu_s()
    for client in clients:
        client.close()
    share = None if before is None or cpu_s is None else (cpu_s - before) / elapsed_s
    assert tally.streams == 0
    return [
        Measured("WebSocket handshakes", limit / elapsed_s, "handshakes/s", share),
        Measured("WebSockets open at once", len(clients), "sockets"),
    ]


class _Opening(asyncio.Protocol):
    """Upgrades and stays open."""

    def __init__(self, upgrade: bytes) -> None:
        self._upgrade = upgrade
        self._transport: asyncio.Transport | None = None
        self.is_open = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._upgrade)

    def data_received(self, data: bytes) -> None:
        self.is_open.set()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _most_sockets() -> int:
    """As many as the limit on open files allows, 5000 at most."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(100, min(5000, soft - 200))


def measure(seconds: float = 2.0, *, most_sockets: int | None = None) -> list[Measured]:
    """Run every phase for that long; a process per phase, so that none pays for the one before.

    Args:
        most_sockets: WebSockets to open at once. None: as many as open files allow, 5000 at most.
    """
    sockets = _most_sockets() if most_sockets is None else most_sockets
    phases: list[Callable[[_Process], Coroutine[Any, Any, list[Measured]]]] = [
        lambda process: _measure_websocket(process, seconds),
        lambda process: _measure_sse(process, seconds),
        lambda process: _measure_paced(process, seconds),
        lambda process: _measure_connections(process, sockets),
    ]
    measured = []
    for phase in phases:
        with _Process() as process, asyncio.Runner(loop_factory=loop_factory()) as runner:
            measured += runner.run(phase(process))
    return measured


def main() -> None:
    """Measure and print."""
    for each in measure():
        sys.stdout.write(f"{each}\n")


if __name__ == "__main__":
    main()

"""A server and its upstream, each a process of its own, and what can be asked of them."""

import asyncio
import collections
import contextlib
import json
import os
import signal
import socket
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from e2e.server_process import ServerProcess, serving
from soak import vitals
from soak.vitals import Metrics, Sample
from warmline_cli.serve import run_loop

T = TypeVar("T")

# How long what is ending may take.
SETTLE_S = 120.0


def run_proof(work: Coroutine[object, object, T]) -> T:
    """Runs a proof on the server's kind of loop; SIGTERM ends it as Ctrl-C does, with all that it started.

    Returns: what it found.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    found: list[T] = []

    async def keep() -> None:
        found.append(await work)

    run_loop(keep())
    return found[0]


@dataclass(slots=True)
class Upstream:
    """`soak.upstream`, running."""

    process: asyncio.subprocess.Process
    base_url: str = ""
    _asking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def ask(self, line: str) -> Any:
        """Sends one line. Returns: what it is answered with."""
        async with self._asking:
            assert self.process.stdin is not None
            assert self.process.stdout is not None
            self.process.stdin.write(line.encode() + b"\n")
            return json.loads(await self.process.stdout.readline())


@contextlib.asynccontextmanager
async def open_upstream(*arguments: str) -> AsyncIterator[Upstream]:
    """Starts it and ends it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "soak.upstream", *arguments,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=64 * 1024 * 1024,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield Upstream(process, (await process.stdout.readline()).decode().strip())
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@dataclass(slots=True)
class Site:
    """Both, and the server's log: how often it said what, and the lines that no run should have."""

    server: ServerProcess
    upstream: Upstream
    metrics_url: str
    said: "collections.Counter[str]" = field(default_factory=collections.Counter)
    errors: list[str] = field(default_factory=list)

    @property
    def pid(self) -> int:
        return self.server.process.pid

    async def metrics(self) -> Metrics:
        """Scrapes the server."""
        text = await asyncio.to_thread(lambda: urllib.request.urlopen(self.metrics_url, timeout=30).read().decode())
        return vitals.read_metrics(text)

    async def until(self, condition: Callable[[Metrics, dict[str, Any]], bool]) -> tuple[Metrics, dict[str, Any], bool]:
        """Waits until a condition holds of the server's metrics and the upstream's counts, or patience ends.

        Returns: both as they then were, and whether it held.
        """
        deadline_s = time.monotonic() + SETTLE_S
        while True:
            found, counts = await self.metrics(), await self.upstream.ask("counts")
            if condition(found, counts) or time.monotonic() > deadline_s:
                return found, counts, condition(found, counts)
            await asyncio.sleep(0.2)

    async def read_log(self) -> None:
        """Reads the server's log to its end: a full pipe would hold it up."""
        assert self.server.process.stderr is not None
        while line := await self.server.process.stderr.readline():
            try:
                said = json.loads(line)
            except ValueError:
                self.errors.append(line.decode(errors="replace").strip())
                continue
            self.said[f"{said['level']}: {said['event']}"] += 1
            if said["level"] not in ("debug", "info", "warning"):
                self.errors.append(json.dumps(said))


@contextlib.asynccontextmanager
async def open_site(upstream: Upstream, **settings: str) -> AsyncIterator[Site]:
    """Starts a server of that upstream; `settings` as `serving` takes them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        metrics_at = f"127.0.0.1:{probe.getsockname()[1]}"
    settings = {"TELEMETRY__PROMETHEUS_LISTEN": metrics_at, **settings}
    async with serving(upstream.base_url, **settings) as server:
        site = Site(server, upstream, f"http://{metrics_at}/metrics")
        reading = asyncio.create_task(site.read_log())
        try:
            yield site
        finally:
            reading.cancel()
            await asyncio.wait([reading])


class Sampler:
    """Looks at a site again and again; `samples` are in order of time."""

    def __init__(self, site: Site, counts: Callable[[], tuple[int, int]]) -> None:
        self.samples: list[Sample] = []
        self.site = site
        self._counts = counts
        self._began_s = time.monotonic()
        self._former: Metrics | None = None

    async def look(self) -> Sample:
        """Takes one sample."""
        site = self.site
        found = await site.metrics()
        held, (turns, cancelled) = vitals.memory(site.pid), self._counts()
        sample = Sample(
            at_s=round(time.monotonic() - self._began_s, 2),
            rss_bytes=held.rss_bytes,
            anonymous_bytes=held.anonymous_bytes,
            descriptors=vitals.descriptors(site.pid),
            threads=vitals.threads(site.pid),
            cpu_s=vitals.cpu_s(site.pid),
            tasks=int(found.value("warmline_event_loop_tasks")),
            lag_s=vitals.worst_lag_s(self._former, found) if self._former is not None else 0.0,
            calls=int(found.value("warmline_calls_active")),
            sessions=int(found.value("warmline_sessions")),
            sockets=int(found.value("warmline_sockets")),
            upstream_connections=(await site.upstream.ask("counts"))["sockets_open"],
            turns=turns,
            cancelled=cancelled,
        )
        self._former = found
        self.samples.append(sample)
        return sample

"""Cells about resident memory: an empty server's, a warm session's, a running call's, and after many cancelled ones."""

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench import load
from bench.figures import Column, Measured
from bench.paths import Path, Running, start_warmline
from bench.proc import rss_bytes
from bench.rig import Rig
from bench.stats import Spread
from bench.upstreams import AnyUpstream, Shape, Simulator, Upstream

SETTLE_S = 0.7
KIB = 1024
EMPTY = Column("empty", "MiB")
PER_ONE = Column("each", "KiB")
WARMED_UP = 50
"""Sessions with a turn, closed again, before the first reading: what is built on first use is not a session's."""


def _settled_rss(running: Running) -> int:
    time.sleep(SETTLE_S)
    assert running.server is not None
    return rss_bytes(running.server.pid)


@dataclass(frozen=True, slots=True)
class Memory:
    """RSS of the server per session: `hold` says what each does, see the load client's plan.

    `idle`: its slot is READY and unused; `used`: it had a turn; `active`: what a call in its middle takes beyond that.
    """

    name: str
    title: str
    hold: str
    variant: str
    note: str = ""
    group: str = "memory"
    sessions: int = 600
    is_tls: bool = False
    is_deflated: bool = False
    paths: tuple[str, ...] = ("warmline",)
    has_peers: bool = False
    columns: tuple[Column, ...] = (EMPTY, PER_ONE)

    def run(self, rig: Rig, paths: Sequence[Path]) -> list[Measured]:
        """A new server for each repeat, two at most: each takes seconds and they hardly differ."""
        if not paths:
            return []
        measured = Measured(self.name, "warmline")
        repeats = [self._once(rig, measured) for _ in range(min(rig.repeats, 2))]
        measured.figures = {
            EMPTY.name: Spread.of([empty for empty, _ in repeats]),
            PER_ONE.name: Spread.of([each for _, each in repeats]),
        }
        return [measured]

    def _once(self, rig: Rig, measured: Measured) -> tuple[float, float]:
        sessions = 50 if rig.is_short else self.sessions
        shape = Shape(words=200, pace_s=1.0) if self.hold == "active" else Shape(words=8)
        upstream = self._start_upstream(shape)
        try:
            return self._measure(rig, upstream, shape, sessions, measured)
        finally:
            upstream.child.stop()

    def _measure(
        self, rig: Rig, upstream: AnyUpstream, shape: Shape, sessions: int, measured: Measured
    ) -> tuple[float, float]:
        running = start_warmline(upstream, certificate=upstream.certificate)
        try:
            empty = _settled_rss(running)
            upstream.set_shape(Shape(words=8))
            plan = {**running.plan, "warm_up": "handshake", "await_ready": True}
            # A hold of active turns reads its base later, when the sessions are open.
            first = "idle" if self.hold == "active" else "used"
            measured.note(load.run({**plan, "workers": WARMED_UP, "hold": first, "prefix": "warm"}))
            upstream.set_shape(shape)
            readings = [_settled_rss(running)]
            if self.hold == "active":
                measured.note(
                    load.run(
                        {**plan, "workers": sessions, "hold": self.hold},
                        at_ready=lambda: readings.__setitem__(0, _settled_rss(running)),
                        at_held=lambda: readings.append(_settled_rss(running)),
                    )
                )
            else:
                measured.note(
                    load.run(
                        {**plan, "workers": sessions, "hold": self.hold},
                        at_held=lambda: readings.append(_settled_rss(running)),
                    )
                )
        finally:
            running.stop()
        each = (readings[1] - readings[0]) / sessions / KIB
        rig.say(f"{self.name}: empty {empty / KIB / KIB:.1f} MiB, each {each:.1f} KiB")
        return empty / KIB / KIB, each

    def _start_upstream(self, shape: Shape) -> AnyUpstream:
        if self.hold == "active":
            return Upstream(name="memory-upstream")
        flags = [*(["--tls-self-signed"] if self.is_tls else []), *([] if self.is_deflated else ["--no-compression"])]
        return Simulator(shape, *flags)


GROWTH = Column("growth per call", "bytes")
CALLS = Column("calls", "count")
AFTER = Column("RSS after", "MiB")
RATE = Column("cancelled calls", "1/s")
STOPPED = Column("answers stopped upstream", "%")

WORKERS = 16
WARM_UP_CALLS = 8000
"""After these the heap is as large as full rings of recent attempts make it, 256 a session."""
PARTS = 20
LIMIT_S = {"warmline": 150.0, "warmline-traced": 20.0}


@dataclass(frozen=True, slots=True)
class Cancelled:
    """RSS growth over calls that their callers cancel in mid-stream; the sessions are closed at each reading.

    The growth per call is the slope of the least squares through the readings. A path makes `calls`, or as many as its
    limit of time allows.
    """

    name: str
    title: str
    calls: int = 100_000
    note: str = ""
    group: str = ""
    variant: str = ""
    paths: tuple[str, ...] = ("warmline", "warmline-traced")
    has_peers: bool = False
    columns: tuple[Column, ...] = (GROWTH, CALLS, AFTER, RATE, STOPPED)

    def run(self, rig: Rig, paths: Sequence[Path]) -> list[Measured]:
        """Once: it takes minutes."""
        return [self._on(path, rig) for path in paths]

    def _on(self, path: Path, rig: Rig) -> Measured:
        measured = Measured(self.name, path.name)
        rig.upstream.set_shape(Shape(words=100, pace_s=0.002))
        with rig.running([path], lambda path: path.start(rig.upstream)) as running:
            way = running[path.name]
            plan = {**way.plan, "workers": WORKERS, "cancel_after": 3, "prefix": "cancelled"}
            measured.note(load.run({**plan, "turns": 3 if rig.is_short else WARM_UP_CALLS // WORKERS}))
            before = rig.upstream.stats()["aborted"]
            readings, elapsed_s = self._readings(rig, way, {**plan, "turns": self._turns(rig)}, measured)
            aborted = rig.upstream.stats()["aborted"] - before
        done, after = readings[-1]
        values = {
            GROWTH: slope(readings),
            CALLS: float(done),
            AFTER: after / KIB / KIB,
            RATE: done / elapsed_s,
            STOPPED: 100 * aborted / max(1, done),
        }
        measured.figures = {column.name: Spread.of([value]) for column, value in values.items()}
        return measured

    def _turns(self, rig: Rig) -> int:
        return 2 if rig.is_short else self.calls // PARTS // WORKERS

    def _readings(
        self, rig: Rig, way: Running, plan: load.Plan, measured: Measured
    ) -> tuple[list[tuple[int, int]], float]:
        """Calls so far and RSS after each part, and how long the calls took."""
        readings, done, elapsed_s = [(0, _settled_rss(way))], 0, 0.0
        end = time.monotonic() + LIMIT_S[measured.path]
        for part in range(1, PARTS + 1):
            loaded = load.run(plan)
            measured.note(loaded)
            done, elapsed_s = done + loaded.cancelled, elapsed_s + loaded.elapsed_s
            readings.append((done, _settled_rss(way)))
            rig.say(f"{self.name} {measured.path}: {done} calls, {slope(readings):.0f} bytes each ({part} of {PARTS})")
            if time.monotonic() > end:
                measured.flags.append(f"{done} calls in the time there was")
                break
        return readings, elapsed_s


def slope(readings: Sequence[tuple[int, int]]) -> float:
    """Bytes per call: the slope of the least squares through (calls, bytes); NaN where no call was made."""
    calls, rss = zip(*readings, strict=True)
    return statistics.linear_regression(calls, rss).slope if calls[-1] > calls[0] else math.nan

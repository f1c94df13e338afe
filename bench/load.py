"""Driving the load client: a plan in, its phases as they come, a result out."""

import contextlib
import json
import subprocess
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.children import CACHE, RIG_CORE, StartError, end, spawn

Plan = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Histogram:
    """Microseconds and how often each was seen, ascending."""

    bars: tuple[tuple[int, int], ...] = ()

    @property
    def count(self) -> int:
        return sum(count for _, count in self.bars)

    def quantile(self, share: float) -> float:
        """The least value that `share` (0 to 1) of the samples do not exceed; NaN without samples."""
        if not self.bars:
            return float("nan")
        wanted, seen = share * self.count, 0
        for value, count in self.bars:
            seen += count
            if seen >= wanted:
                return float(value)
        return float(self.bars[-1][0])

    def __add__(self, other: "Histogram") -> "Histogram":
        counts: dict[int, int] = {}
        for value, count in (*self.bars, *other.bars):
            counts[value] = counts.get(value, 0) + count
        return Histogram(tuple(sorted(counts.items())))


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a run of the load client brought. Times in seconds, histograms in microseconds."""

    elapsed_s: float
    streams: int
    cancelled: int
    failed: int
    events: int
    deltas: int
    lost: int
    stalls: int
    cpu_s: float
    first_us: Histogram
    gap_us: Histogram
    latency_us: Histogram
    turn_us: Histogram
    errors: dict[str, int] = field(default_factory=dict)
    outcomes: dict[str, int] = field(default_factory=dict)

    @classmethod
    def parse(cls, result: dict[str, Any]) -> "Loaded":
        """Reads the client's `result` message."""
        values = {name: value for name, value in result.items() if name != "phase"}
        for name in ("first_us", "gap_us", "latency_us", "turn_us"):
            values[name] = Histogram(tuple((bar[0], bar[1]) for bar in result[name]["bars"]))
        return cls(**values)


Hook = Callable[[], None]


def nothing() -> None:
    """What is done where nothing is asked for."""


def run(
    plan: Plan,
    *,
    core: int | None = RIG_CORE,
    at_ready: Hook = nothing,
    at_held: Hook = nothing,
    at_end: Hook = nothing,
    limit_s: float = 600.0,
) -> Loaded:
    """Runs one plan.

    Args: `at_ready` is called when the lines are open and warm, before the clock starts; `at_held` while a plan that
        holds has reached what it holds; `at_end` after the last turn, before the lines are closed; `limit_s` ends a run
        that hangs.
    Raises: StartError when the client fails; failed turns are no failure of the client, they are counted.
    """
    command = [str(CACHE / "load"), "run"]
    pipe = subprocess.PIPE
    process = spawn(command, core, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    guard = threading.Timer(limit_s, process.kill)
    guard.start()
    try:
        _tell(process.stdin, json.dumps(plan))
        for line in process.stdout:
            message = json.loads(line)
            if message["phase"] == "result":
                at_end()
                _tell(process.stdin, "close")
                process.wait()
                return Loaded.parse(message)
            {"ready": at_ready, "held": at_held}[message["phase"]]()
            _tell(process.stdin, "go")
        raise StartError(f"the load client failed: {process.stderr.read()[-2000:]}")
    finally:
        guard.cancel()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        end(process)
        process.stdout.close()
        process.stderr.close()


def _tell(stdin: Any, line: str) -> None:
    stdin.write(line + "\n")
    stdin.flush()

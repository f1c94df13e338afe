"""What a server process holds, as the system and its own metrics tell it."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

_LINE = re.compile(r"^([a-z_]+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_BOUND = re.compile(r'le="([^"]+)"')


@dataclass(frozen=True, slots=True)
class Metrics:
    """One scrape: values summed over all labels, and the lag's cumulative counts by upper bound in seconds."""

    values: Mapping[str, float]
    lag: Mapping[float, float]

    def value(self, name: str) -> float:
        """The sum of a metric; 0 when it has no measurement yet."""
        return self.values.get(name, 0.0)


def read_metrics(text: str) -> Metrics:
    """Reads Prometheus' text format."""
    values: dict[str, float] = {}
    lag: dict[float, float] = {}
    for name, labels, value in _LINE.findall(text):
        if name == "warmline_event_loop_lag_seconds_bucket":
            bound = _BOUND.search(labels)
            if bound is not None:
                lag[float(bound[1])] = float(value)
        elif not name.endswith("_bucket"):
            values[name] = values.get(name, 0.0) + float(value)
    return Metrics(values, lag)


def worst_lag_s(before: Metrics, after: Metrics) -> float:
    """The longest lag between two scrapes, as the upper bound of its bucket; 0 when none was measured."""
    since = {bound: count - before.lag.get(bound, 0.0) for bound, count in after.lag.items()}
    measured = max(since.values(), default=0.0)
    return min((bound for bound, count in since.items() if count >= measured > 0), default=0.0)


@dataclass(frozen=True, slots=True)
class Sample:
    """One look. `at_s`: seconds since the run began; the counts of turns are the load's, since then too."""

    at_s: float
    rss_bytes: int
    anonymous_bytes: int
    descriptors: int
    threads: int
    cpu_s: float
    tasks: int
    lag_s: float
    calls: int
    sessions: int
    sockets: int
    upstream_connections: int
    """Open connections as the upstream counts them: the sockets, and HTTP connections kept for the next request."""
    turns: int
    cancelled: int

    @property
    def own_descriptors(self) -> int:
        """Without the connections to the upstream: idle ones for HTTP are kept for the next request."""
        return self.descriptors - self.upstream_connections

    def as_json(self) -> dict[str, float]:
        """Its fields by name."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Memory:
    """`rss_bytes`: resident; `anonymous_bytes`: of it, what no file backs: heap and stacks."""

    rss_bytes: int
    anonymous_bytes: int


def memory(pid: int) -> Memory:
    """Source: `/proc/PID/smaps_rollup`, which counts pages; `statm` is a sum of per-thread estimates."""
    found = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, rest = line.partition(":")
        found[name] = int(rest.split()[0]) * 1024
    return Memory(found["Rss"], found["Anonymous"])


def descriptors(pid: int) -> int:
    """Open files and sockets."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def threads(pid: int) -> int:
    """Threads, of grpc, the telemetry and the runtime."""
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def cpu_s(pid: int) -> float:
    """CPU seconds so far, user and system."""
    parts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(parts[11]) + int(parts[12])) / 100

"""What is read off a load: columns of the tables, and how each comes from a sample."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bench.load import Histogram, Loaded
from bench.stats import Spread

ENOUGH_FOR_P99 = 1000


@dataclass(frozen=True, slots=True)
class Column:
    """A figure's name and unit. `is_added`: the table also shows it less the direct path's."""

    name: str
    unit: str
    is_added: bool = False


@dataclass(slots=True)
class Measured:
    """A cell on a path: its figures, and everything that is wrong with them."""

    cell: str
    path: str
    figures: dict[str, Spread] = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)
    lost: int = 0
    failed: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    outcomes: dict[str, int] = field(default_factory=dict)
    rig_share: float = 0.0
    """How busy the core of client and upstream was, in the busiest repeat."""

    def note(self, loaded: Loaded) -> None:
        """Adds a run's losses and failures."""
        self.lost += loaded.lost
        self.failed += loaded.failed
        for name, count in loaded.errors.items():
            self.errors[name] = self.errors.get(name, 0) + count
        for name, count in loaded.outcomes.items():
            self.outcomes[name] = self.outcomes.get(name, 0) + count


@dataclass(frozen=True, slots=True)
class Sample:
    """One repeat of one load on one path."""

    loaded: Loaded
    server_cpu_s: float | None
    """CPU of the server and its descendants, user and system; None where nothing is between."""
    rig_cpu_s: float
    """CPU of the load client, the upstream and the sink."""
    upstream: Mapping[str, int]
    """What the upstream counted meanwhile."""

    @property
    def rig_share(self) -> float:
        """How busy the rig's core was, 0 to 1."""
        return self.rig_cpu_s / self.loaded.elapsed_s


@dataclass(frozen=True, slots=True)
class Figure:
    """A column filled from samples. With `pool` it is a quantile of all repeats' single measurements together."""

    column: Column
    of: Callable[[Sample], float]
    pool: Callable[[Sample], Histogram] | None = None
    share: float = 0.5

    def spread(self, samples: Sequence[Sample]) -> Spread:
        """Median of the repeats; for a tail the quantile of all of them together. Range: of the repeats."""
        values = [self.of(sample) for sample in samples]
        if self.pool is None:
            return Spread.of(values)
        pooled = Histogram()
        for sample in samples:
            pooled += self.pool(sample)
        tail = pooled.quantile(self.share) / 1e3 if self.share > 0.9 else None
        return Spread.of(values, pooled.count, tail)

    def complaint(self, spread: Spread) -> str:
        """What is wrong with the figure itself; blank: nothing."""
        if self.pool is not None and self.share > 0.9 and 0 < spread.samples < ENOUGH_FOR_P99:
            return f"{self.column.name}: only {spread.samples} samples"
        return ""


def _quantile(name: str, of: str, share: float, *, is_added: bool = True) -> Figure:
    def histogram(sample: Sample) -> Histogram:
        found: Histogram = getattr(sample.loaded, of)
        return found

    column = Column(name, "ms", is_added)
    return Figure(column, lambda sample: histogram(sample).quantile(share) / 1e3, histogram, share)


def _cpu_per(sample: Sample, count: int) -> float:
    return math.nan if sample.server_cpu_s is None or not count else sample.server_cpu_s / count * 1e6


def _cpu_per_event(sample: Sample) -> float:
    """By the upstream's count where it has one: some peers leave events out, which does not make the others dearer."""
    return _cpu_per(sample, sample.upstream.get("events_written") or sample.loaded.events)


def _cpu_per_turn(sample: Sample) -> float:
    return _cpu_per(sample, sample.loaded.streams)


def _upstream_kib(sample: Sample) -> float:
    return sample.upstream["request_bytes"] / 1024


FIRST_P50 = _quantile("first event p50", "first_us", 0.50)
FIRST_P99 = _quantile("first event p99", "first_us", 0.99)
LATENCY_P50 = _quantile("written to read p50", "latency_us", 0.50)
LATENCY_P99 = _quantile("written to read p99", "latency_us", 0.99)
GAP_P99 = _quantile("gap p99", "gap_us", 0.99, is_added=False)
TURN_P50 = _quantile("turn p50", "turn_us", 0.50, is_added=False)
CPU_EVENT = Figure(Column("server CPU per event", "µs"), _cpu_per_event)
CPU_TURN = Figure(Column("server CPU per turn", "µs"), _cpu_per_turn)
EVENTS_S = Figure(Column("events", "1/s"), lambda sample: sample.loaded.events / sample.loaded.elapsed_s)
STREAMS_S = Figure(Column("streams", "1/s"), lambda sample: sample.loaded.streams / sample.loaded.elapsed_s)
UPSTREAM_KIB = Figure(Column("sent upstream", "KiB"), _upstream_kib)
CONTINUED = Figure(Column("requests that continue", "count"), lambda sample: sample.upstream["continued"])

"""What is measured, as data. A cell is one load on several paths, interleaved, repeated."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bench.load import Histogram, Loaded
from bench.paths import OWN
from bench.upstreams import Shape


@dataclass(frozen=True, slots=True)
class Sample:
    """One repeat of one cell on one path."""

    loaded: Loaded
    server_cpu_s: float | None
    """CPU of the server and its descendants, user and system; None where nothing is between."""
    rig_share: float
    """How busy the core of the load client and the upstream was, 0 to 1."""
    upstream: Mapping[str, int]
    """What the upstream counted meanwhile."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of a sample. With `pool` it is a quantile of all repeats' samples together."""

    name: str
    unit: str
    of: Callable[[Sample], float]
    pool: Callable[[Sample], Histogram] | None = None
    share: float = 0.5
    is_added: bool = False
    """The direct path's value is taken off in the table."""


def _quantile(name: str, of: str, share: float, *, is_added: bool = True) -> Figure:
    def histogram(sample: Sample) -> Histogram:
        found: Histogram = getattr(sample.loaded, of)
        return found

    return Figure(name, "ms", lambda sample: histogram(sample).quantile(share) / 1e3, histogram, share, is_added)


def _cpu_per(count: str) -> Callable[[Sample], float]:
    def of(sample: Sample) -> float:
        done: int = getattr(sample.loaded, count)
        return float("nan") if sample.server_cpu_s is None or not done else sample.server_cpu_s / done * 1e6

    return of


FIRST_P50 = _quantile("first event p50", "first_us", 0.50)
FIRST_P99 = _quantile("first event p99", "first_us", 0.99)
LATENCY_P50 = _quantile("event, written to read, p50", "latency_us", 0.50)
LATENCY_P99 = _quantile("event, written to read, p99", "latency_us", 0.99)
GAP_P99 = _quantile("gap between events p99", "gap_us", 0.99, is_added=False)
CPU_EVENT = Figure("server CPU per event", "µs", _cpu_per("events"))
CPU_TURN = Figure("server CPU per turn", "µs", _cpu_per("streams"))
EVENTS_S = Figure("events", "1/s", lambda sample: sample.loaded.events / sample.loaded.elapsed_s)
STREAMS_S = Figure("streams", "1/s", lambda sample: sample.loaded.streams / sample.loaded.elapsed_s)


@dataclass(frozen=True, slots=True)
class Cell:
    """One load. `plan` is the load client's, less what the path says; `shape` the upstream's answers."""

    name: str
    title: str
    plan: Mapping[str, object]
    shape: Shape
    figures: tuple[Figure, ...]
    paths: tuple[str, ...] = OWN
    peers: bool = False
    """Peers are measured on it too, beside `direct-http`."""
    note: str = ""
    short_plan: Mapping[str, object] = field(default_factory=dict)
    """What the short form changes."""


PACED = 0.02


def _first(workers: int, words: int, pace_s: float, turns: int, title: str, *figures: Figure) -> Cell:
    return Cell(
        f"first-c{workers}",
        title,
        {"workers": workers, "turns": turns, "warmup_turns": 2, "words": words, "stagger_s": words * pace_s},
        Shape(words=words, pace_s=pace_s),
        (FIRST_P50, FIRST_P99, LATENCY_P50, LATENCY_P99, GAP_P99, *figures),
        peers=True,
        note=f"{workers} sessions, turns of {words} deltas {pace_s * 1e3:g} ms apart, one turn after the other",
        short_plan={"turns": 3},
    )


def _paced(sessions: int) -> Cell:
    return Cell(
        f"cpu-{sessions}",
        f"CPU per event, {sessions} sessions at 50 events/s",
        {"workers": sessions, "turns": 1, "warmup_turns": 1, "words": 120, "stagger_s": 0.6, "stall_s": 10 * PACED},
        Shape(words=120, pace_s=PACED),
        (CPU_EVENT, LATENCY_P50, LATENCY_P99),
        peers=sessions == 50,
        note="turns of 120 deltas 20 ms apart, their start and end included; turns start spread over 0.6 s",
        short_plan={"words": 20, "stagger_s": 0.1},
    )


CELLS = (
    _first(1, 8, 0.001, 240, "First event, one session"),
    _first(16, 32, 0.005, 16, "First event, 16 sessions"),
    _first(64, 64, 0.005, 5, "First event, 64 sessions", STREAMS_S),
    _paced(1),
    _paced(50),
    _paced(100),
    _paced(200),
    Cell(
        "burst-events",
        "Events per second at saturation",
        {"workers": 16, "duration_s": 2.5, "warmup_turns": 1, "words": 1000},
        Shape(words=1000),
        (EVENTS_S, CPU_EVENT),
        peers=True,
        note="16 sessions, turns of 1000 deltas without a pace; server on one core, client and upstream on the other",
        short_plan={"duration_s": 0.3},
    ),
    Cell(
        "burst-streams",
        "Streams per second at saturation",
        {"workers": 64, "duration_s": 2.5, "warmup_turns": 1, "words": 16},
        Shape(words=16),
        (STREAMS_S, CPU_TURN),
        peers=True,
        note="64 sessions, turns of 16 deltas without a pace; server on one core, client and upstream on the other",
        short_plan={"duration_s": 0.3},
    ),
    Cell(
        "turn-starts",
        "Turns started per second",
        {"workers": 64, "duration_s": 2.5, "warmup_turns": 1, "words": 1},
        Shape(words=1),
        (STREAMS_S, CPU_TURN, FIRST_P50),
        note="64 sessions on open sockets, turns of one delta",
        short_plan={"duration_s": 0.3},
    ),
)

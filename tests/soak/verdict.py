"""What the samples of a run say. Pure.

Memory is judged after warm-up, which is the first quarter of the load: from then on its time is cut into windows, each
window is its median, and the growth is the slope of Theil and Sen through the medians (the median of the slopes of all
pairs), times that time. A few samples that are far off, a collection that comes late or a burst, then change nothing; a
leak shows in most pairs.
"""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations

from soak.vitals import Sample

WARM_UP_SHARE = 0.25
WINDOWS = 24
# The limits that docs/operations.md states.
BYTES_PER_CANCELLED = 100.0
SHARE_OF_RSS = 0.02
MIB = 1024 * 1024
AT_REST = {
    "own_descriptors": "open descriptors but connections upstream",
    "tasks": "tasks of the event loop",
    "calls": "calls",
    "sessions": "sessions",
    "sockets": "upstream sockets",
}


@dataclass(frozen=True, slots=True)
class Growth:
    """How a figure moved after warm-up, all in its own unit. `base`: where the line through the windows begins."""

    base: float
    total: float
    noise: float
    """Median distance of the windows from the line."""


def growth(times_s: Sequence[float], values: Sequence[float], windows: int = WINDOWS) -> Growth:
    """The robust slope through windows of equal time. Needs two samples at least."""
    middles, medians = _windows(times_s, values, windows)
    slopes = [
        (medians[b] - medians[a]) / (middles[b] - middles[a]) for a, b in combinations(range(len(medians)), 2)
    ]  # fmt: skip
    slope = statistics.median(slopes) if slopes else 0.0
    offset = statistics.median(value - slope * at_s for at_s, value in zip(middles, medians, strict=True))
    distances = [abs(value - slope * at_s - offset) for at_s, value in zip(middles, medians, strict=True)]
    return Growth(slope * times_s[0] + offset, slope * (times_s[-1] - times_s[0]), statistics.median(distances))


def _windows(times_s: Sequence[float], values: Sequence[float], windows: int) -> tuple[list[float], list[float]]:
    first_s, whole_s = times_s[0], max(times_s[-1] - times_s[0], 1e-9)
    parts: dict[int, list[tuple[float, float]]] = {}
    for at_s, value in zip(times_s, values, strict=True):
        parts.setdefault(min(windows - 1, int((at_s - first_s) / whole_s * windows)), []).append((at_s, value))
    kept = [parts[number] for number in sorted(parts)]
    return (
        [statistics.median(at_s for at_s, _ in part) for part in kept],
        [statistics.median(value for _, value in part) for part in kept],
    )


def after_warm_up(samples: Sequence[Sample]) -> Sequence[Sample]:
    """Those of the last three quarters of the time."""
    from_s = samples[0].at_s + (samples[-1].at_s - samples[0].at_s) * WARM_UP_SHARE
    return [sample for sample in samples if sample.at_s >= from_s]


@dataclass(slots=True)
class Verdict:
    """`lines` say what was found, each with whether it holds."""

    lines: list[tuple[bool, str]] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        return all(holds for holds, _ in self.lines)

    def expect(self, holds: bool, text: str) -> None:
        self.lines.append((holds, text))

    def judge_memory(self, samples: Sequence[Sample]) -> None:
        """Resident memory under load, per cancelled call and on the whole."""
        late = after_warm_up(samples)
        found = growth([s.at_s for s in late], [s.rss_bytes for s in late])
        cancelled = late[-1].cancelled - late[0].cancelled
        limit = BYTES_PER_CANCELLED * cancelled + SHARE_OF_RSS * found.base
        each = found.total / cancelled if cancelled else 0.0
        self.figures |= {f"rss_{name}_bytes": round(value) for name, value in asdict(found).items()}
        self.figures |= {"rss_limit_bytes": round(limit), "rss_bytes_per_cancelled": round(each, 1)}
        self.figures |= {
            "cancelled_after_warm_up": cancelled,
            "rss_growth_percent": round(found.total / found.base * 100, 2),
        }
        self.expect(
            found.total <= limit,
            f"memory after warm-up: {found.base / MIB:.1f} MiB, {found.total / MIB:+.2f} MiB "
            f"({found.total / found.base:+.1%}) in {cancelled} cancelled calls, {each:+.0f} bytes each; "
            f"allowed {limit / MIB:.1f} MiB; noise {found.noise / MIB:.2f} MiB",
        )

    def judge_growth(self, samples: Sequence[Sample], name: str, what: str) -> None:
        """A count that moves with the load and must not drift: no more than the noise of its windows, or one in 50."""
        late = after_warm_up(samples)
        found = growth([s.at_s for s in late], [getattr(s, name) for s in late])
        allowed = max(3 * found.noise, 0.02 * found.base, 2.0)
        self.figures |= {f"{name}_base": round(found.base, 1), f"{name}_growth": round(found.total, 1)}
        self.expect(
            found.total <= allowed, f"{what} under load: {found.base:.0f}, {found.total:+.1f}; allowed {allowed:.0f}"
        )

    def judge_return(self, before: Sample, after: Sample) -> None:
        """When the load has ended, nothing of it is left."""
        for name, what in AT_REST.items():
            was, is_now = getattr(before, name), getattr(after, name)
            self.figures |= {f"{name}_before": was, f"{name}_after": is_now}
            self.expect(is_now <= was, f"{what} before the load {was}, after it {is_now}")

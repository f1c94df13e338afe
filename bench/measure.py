"""Runs cells: paths interleaved, repeats counted, the CPU of the server read around the load and nothing else."""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from bench import load
from bench.cells import Cell, Figure, Sample
from bench.load import Histogram, Loaded
from bench.paths import Path, Running
from bench.proc import CpuTime
from bench.stats import Spread
from bench.upstreams import Upstream

NEAR_A_CEILING = 0.9
Say = Callable[[str], None]


@dataclass(slots=True)
class Measured:
    """A cell on a path: its samples, figures and everything that is wrong with them."""

    cell: str
    path: str
    figures: dict[str, Spread] = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)
    lost: int = 0
    failed: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    outcomes: dict[str, int] = field(default_factory=dict)
    rig_share: float = 0.0


def sample(cell: Cell, plan: load.Plan, running: Running, upstream: Upstream) -> Sample:
    """Measures once. The server's CPU is read after the warm-up and after the last event."""
    # Lines are warmed up by answers of the same length without a pace: it would only take time.
    upstream.set_shape(dataclasses.replace(cell.shape, pace_s=0.0, first_delay_s=0.0))
    before: list[tuple[CpuTime | None, CpuTime, list[CpuTime], dict[str, int]]] = []

    def read() -> tuple[CpuTime | None, CpuTime, list[CpuTime], dict[str, int]]:
        server = None if running.server is None else CpuTime.of(running.server.pid)
        beside = [CpuTime.of(child.pid) for child in running.beside]
        return server, CpuTime.of(upstream.child.pid), beside, upstream.stats()

    def at_ready() -> None:
        upstream.set_shape(cell.shape)
        before.append(read())

    loaded = load.run(plan, at_ready=at_ready)
    after = read()
    server_before, upstream_before, beside_before, stats_before = before[0]
    server_after, upstream_after, beside_after, stats_after = after
    rig_s = loaded.cpu_s + upstream_after.since(upstream_before)
    rig_s += sum(now.since(then) for now, then in zip(beside_after, beside_before, strict=True))
    cpu_s = None
    if server_after is not None and server_before is not None:
        cpu_s = server_after.since(server_before)
    counted = {name: stats_after[name] - stats_before[name] for name in stats_after}
    return Sample(loaded, cpu_s, rig_s / loaded.elapsed_s, counted)


def run_cell(
    cell: Cell,
    paths: list[Path],
    upstream: Upstream,
    start: Callable[[Path], Running],
    release: Callable[[Path, Running], None],
    *,
    repeats: int,
    is_short: bool,
    say: Say,
) -> Iterator[Measured]:
    """Measures a cell on all its paths, one after the other, `repeats` times over; yields their figures at the end."""
    given = {**cell.plan, **(cell.short_plan if is_short else {})}
    if is_short and "words" in cell.short_plan:
        cell = dataclasses.replace(cell, shape=dataclasses.replace(cell.shape, words=_number(given["words"])))
    running: dict[str, Running] = {}
    samples: dict[str, list[Sample]] = {path.name: [] for path in paths}
    try:
        for path in paths:
            running[path.name] = start(path)
        for repeat in range(repeats):
            # Each repeat starts with another path, so that no path always comes after the same one.
            for path in paths[repeat % len(paths) :] + paths[: repeat % len(paths)]:
                way = running[path.name]
                plan = {**given, **way.plan, "prefix": f"{cell.name}-{repeat}"}
                if way.server is not None:
                    way.server.wake()
                taken = sample(cell, plan, way, upstream)
                if way.server is not None and path.is_peer:
                    way.server.sleep()
                samples[path.name].append(taken)
                say(_progress(cell, path, repeat, repeats, taken))
    finally:
        for path in paths:
            if path.name in running:
                release(path, running[path.name])
    for path in paths:
        yield _sum_up(cell, path, samples[path.name])


def _progress(cell: Cell, path: Path, repeat: int, repeats: int, taken: Sample) -> str:
    figures = ", ".join(f"{figure.name} {figure.of(taken):.4g} {figure.unit}" for figure in cell.figures[:2])
    wrong = f"  FAILED {taken.loaded.failed} {list(taken.loaded.errors)[:1]}" if taken.loaded.failed else ""
    return f"{cell.name} {path.name} {repeat + 1}/{repeats}: {figures}; rig {taken.rig_share:.0%}{wrong}"


def _sum_up(cell: Cell, path: Path, samples: list[Sample]) -> Measured:
    measured = Measured(cell.name, path.name)
    for figure in cell.figures:
        measured.figures[figure.name] = _spread(figure, samples)
        spread = measured.figures[figure.name]
        if figure.pool is not None and figure.share > 0.9 and 0 < spread.samples < 1000:
            measured.flags.append(f"{figure.name}: only {spread.samples} samples")
    loads = [taken.loaded for taken in samples]
    measured.lost = sum(loaded.lost for loaded in loads)
    measured.failed = sum(loaded.failed for loaded in loads)
    measured.errors = _add(loaded.errors for loaded in loads)
    measured.outcomes = _add(loaded.outcomes for loaded in loads)
    measured.rig_share = max(taken.rig_share for taken in samples)
    if measured.rig_share >= NEAR_A_CEILING:
        measured.flags.append(f"near the ceiling of client and upstream: their core was {measured.rig_share:.0%} busy")
    stalls = sum(loaded.stalls for loaded in loads)
    if stalls:
        measured.flags.append(f"{stalls} gaps of more than ten times the pace")
    late, written = (sum(taken.upstream.get(name, 0) for taken in samples) for name in ("late", "events_written"))
    if late * 100 > written:
        measured.flags.append(f"the upstream wrote {late / written:.1%} of the events over 1 ms late")
    return measured


def _spread(figure: Figure, samples: list[Sample]) -> Spread:
    values = [figure.of(taken) for taken in samples]
    if figure.pool is None:
        return Spread.of(values)
    pooled = Histogram()
    for taken in samples:
        pooled += figure.pool(taken)
    quantile = pooled.quantile(figure.share) / 1e3 if figure.share > 0.9 else None
    return Spread.of(values, pooled.count, quantile)


def _add(counts: "Iterator[dict[str, int]]") -> dict[str, int]:
    total: dict[str, int] = {}
    for one in counts:
        for name, count in one.items():
            total[name] = total.get(name, 0) + count
    return total


def _number(value: object) -> int:
    assert isinstance(value, int)
    return value


def is_clean(loaded: Loaded) -> bool:
    """Nothing was lost and nothing failed."""
    return not loaded.lost and not loaded.failed

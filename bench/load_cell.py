"""A cell that is one load on several paths: interleaved, repeated, the server's CPU read around the load only."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bench import load
from bench.figures import Column, Figure, Measured, Sample
from bench.paths import OWN, Path, Running
from bench.proc import CpuTime
from bench.rig import Rig
from bench.upstreams import AnyUpstream, Shape, Simulator, Upstream

NEAR_A_CEILING = 0.9


@dataclass(frozen=True, slots=True)
class Load:
    """`plan` is the load client's, less what the path says; `shape` what the upstream answers.

    Cells of one `group` make one table, told apart by `variant`.
    """

    name: str
    title: str
    plan: Mapping[str, object]
    shape: Shape
    figures: tuple[Figure, ...]
    paths: tuple[str, ...] = OWN
    has_peers: bool = False
    peer_repeats: int = 5
    """At most so many repeats of peers."""
    note: str = ""
    group: str = ""
    variant: str = ""
    handshake_delay_s: float = 0.0
    """An upstream of its own that takes so long to answer an upgrade."""
    is_deflated: bool = False
    """Against the simulator, which agrees to compression."""
    short_plan: Mapping[str, object] = field(default_factory=dict)
    """What the short form changes."""

    @property
    def columns(self) -> tuple[Column, ...]:
        return tuple(figure.column for figure in self.figures)

    def run(self, rig: Rig, paths: Sequence[Path]) -> list[Measured]:
        """Measures the cell on the paths, `rig.repeats` times."""
        plan, shape = {**self.plan}, self.shape
        if rig.is_short:
            plan |= self.short_plan
            if isinstance(words := self.short_plan.get("words"), int):
                shape = dataclasses.replace(shape, words=words)
        samples: dict[str, list[Sample]] = {}
        with (
            self._upstream(rig, shape) as upstream,
            rig.running(paths, lambda path: path.start(upstream)) as running,
        ):
            names = [*running]
            for repeat in range(rig.repeats):
                # Each repeat starts with another path, so that no path always comes after the same one.
                turned = repeat % len(names) if names else 0
                for name in names[turned:] + names[:turned]:
                    if running[name].is_held_still and repeat >= self.peer_repeats:
                        continue
                    given = {**plan, **running[name].plan, "prefix": f"{self.name}-{repeat}"}
                    taken = sample(given, shape, running[name], upstream)
                    samples.setdefault(name, []).append(taken)
                    rig.say(self._progress(name, repeat, rig.repeats, taken))
        return [self._sum_up(name, taken) for name, taken in samples.items()]

    @contextlib.contextmanager
    def _upstream(self, rig: Rig, shape: Shape) -> Iterator[AnyUpstream]:
        if not self.handshake_delay_s and not self.is_deflated:
            yield rig.upstream
            return
        own: AnyUpstream
        if self.is_deflated:
            own = Simulator(shape)
        else:
            own = Upstream(handshake_delay_s=self.handshake_delay_s, name="slow-upstream")
        try:
            yield own
        finally:
            own.child.stop()

    def _progress(self, path: str, repeat: int, repeats: int, taken: Sample) -> str:
        told = [f"{figure.column.name} {figure.of(taken):.4g} {figure.column.unit}" for figure in self.figures[:2]]
        wrong = f"  FAILED {taken.loaded.failed} {list(taken.loaded.errors)[:1]}" if taken.loaded.failed else ""
        return f"{self.name} {path} {repeat + 1}/{repeats}: {', '.join(told)}; rig {taken.rig_share:.0%}{wrong}"

    def _sum_up(self, path: str, samples: list[Sample]) -> Measured:
        measured = Measured(self.name, path)
        for figure in self.figures:
            spread = figure.spread(samples)
            measured.figures[figure.column.name] = spread
            if complaint := figure.complaint(spread):
                measured.flags.append(complaint)
        for taken in samples:
            measured.note(taken.loaded)
        measured.rig_share = max(taken.rig_share for taken in samples)
        if measured.rig_share >= NEAR_A_CEILING:
            measured.flags.append(
                f"near the ceiling of client and upstream: their core was {measured.rig_share:.0%} busy"
            )
        stalls = sum(taken.loaded.stalls for taken in samples)
        if stalls:
            measured.flags.append(f"{stalls} gaps of more than ten times the pace")
        late, written = (sum(taken.upstream.get(name, 0) for taken in samples) for name in ("late", "events_written"))
        if late * 100 > written:
            measured.flags.append(f"the upstream wrote {late / written:.1%} of the events over 1 ms late")
        return measured


def sample(plan: load.Plan, shape: Shape, running: Running, upstream: AnyUpstream) -> Sample:
    """Measures once. The server's CPU is read after the warm-up and after the last event."""
    before: list[_Reading] = []
    after: list[_Reading] = []

    def at_ready() -> None:
        upstream.set_shape(shape)
        before.append(_Reading.take(running, upstream))

    if running.server is not None:
        running.server.wake()
    upstream.set_shape(shape.for_warming_up)
    try:
        loaded = load.run(plan, at_ready=at_ready, at_end=lambda: after.append(_Reading.take(running, upstream)))
    finally:
        if running.server is not None and running.is_held_still:
            running.server.sleep()
    server_cpu_s, rig_cpu_s, counted = after[0].since(before[0])
    return Sample(loaded, server_cpu_s, loaded.cpu_s + rig_cpu_s, counted)


@dataclass(frozen=True, slots=True)
class _Reading:
    """All clocks and counters at one moment."""

    server: CpuTime | None
    rig: list[CpuTime]
    counted: dict[str, int]

    @classmethod
    def take(cls, running: Running, upstream: AnyUpstream) -> "_Reading":
        server = None if running.server is None else CpuTime.of(running.server.pid)
        rig = [CpuTime.of(child.pid) for child in (upstream.child, *running.beside)]
        return cls(server, rig, upstream.stats())

    def since(self, before: "_Reading") -> tuple[float | None, float, dict[str, int]]:
        server_s = None
        if self.server is not None and before.server is not None:
            server_s = self.server.since(before.server)
        rig_s = sum(now.since(then) for now, then in zip(self.rig, before.rig, strict=True))
        return server_s, rig_s, {name: count - before.counted[name] for name, count in self.counted.items()}

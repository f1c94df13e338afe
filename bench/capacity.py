"""How many paced sessions a path carries before one of them stalls."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.figures import Column, Measured
from bench.load_cell import NEAR_A_CEILING, sample
from bench.paths import Path, Running
from bench.rig import Rig
from bench.stats import Spread
from bench.upstreams import Shape

SESSIONS = Column("sessions without a stall", "count")
PACE_S = 0.02
STALL_S = 10 * PACE_S
STARTS_PER_S = 200
RUNGS = tuple(round(64 * 1.25**step) for step in range(24))


@dataclass(frozen=True, slots=True)
class Capacity:
    """The largest session count at 50 events/s each with nothing lost or failed and no gap over ten times the pace.

    The rungs are a quarter apart; later repeats begin two rungs below the best of the one before.
    """

    name: str
    title: str
    note: str = ""
    group: str = ""
    variant: str = ""
    paths: tuple[str, ...] = ("relay", "warmline")
    has_peers: bool = False
    columns: tuple[Column, ...] = (SESSIONS,)

    def run(self, rig: Rig, paths: Sequence[Path]) -> list[Measured]:
        """Climbs until a rung fails, on each path in turn, twice at most: a climb takes half a minute."""
        found: dict[str, list[int]] = {path.name: [] for path in paths}
        all_measured = {path.name: Measured(self.name, path.name) for path in paths}
        with rig.running(paths, lambda path: path.start(rig.upstream)) as running:
            for _ in range(min(rig.repeats, 2)):
                for name, way in running.items():
                    former = found[name][-1] if found[name] else 3
                    first = 0 if rig.is_short else max(0, former - 2)
                    rung = climb(first, 1 if rig.is_short else len(RUNGS), self._holder(way, rig, all_measured[name]))
                    found[name].append(rung)
                    rig.say(f"{self.name} {name}: {RUNGS[rung] if rung >= 0 else 0} sessions")
        for name, rungs in found.items():
            counts = [float(RUNGS[rung]) if rung >= 0 else 0.0 for rung in rungs]
            all_measured[name].figures = {SESSIONS.name: Spread.of(counts)}
        return list(all_measured.values())

    def _holder(self, way: Running, rig: Rig, measured: Measured) -> Callable[[int], bool]:
        return lambda rung: self._holds(RUNGS[rung], way, rig, measured)

    def _holds(self, sessions: int, way: Running, rig: Rig, measured: Measured) -> bool:
        stagger_s = sessions / STARTS_PER_S
        words = round((stagger_s + 2.0) / PACE_S) if not rig.is_short else 20
        shape = Shape(words=words, pace_s=PACE_S)
        plan = {"workers": sessions, "turns": 1, "warmup_turns": 1, "words": words, "stall_s": STALL_S}
        taken = sample({**plan, **way.plan, "stagger_s": stagger_s, "prefix": f"n{sessions}"}, shape, way, rig.upstream)
        loaded = taken.loaded
        measured.rig_share = max(measured.rig_share, taken.rig_share)
        if taken.rig_share > NEAR_A_CEILING:
            measured.flags.append(f"the rig itself was near its ceiling at {sessions} sessions")
        return not (loaded.lost or loaded.failed or loaded.stalls)


def climb(first: int, rungs: int, holds: Callable[[int], bool]) -> int:
    """Goes up from rung `first` until one fails, or down from it until one holds.

    Returns: the highest rung that held; -1 if none did.
    """
    if holds(first):
        while first + 1 < rungs and holds(first + 1):
            first += 1
        return first
    while first > 0:
        first -= 1
        if holds(first):
            return first
    return -1

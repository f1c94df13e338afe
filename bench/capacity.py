"""How many paced sessions a path carries before one of them stalls."""

import itertools
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
TOGETHER_S = 1.5
"""How long all sessions stream at once."""
FINENESS = 1.1
RUNGS = tuple(round(16 * FINENESS**step) for step in range(64))
FIRST_RUNG = 28
FIRST_STRIDE = 8
"""About a doubling."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """The largest session count at 50 events/s each with nothing lost or failed and no gap over ten times the pace.

    The first repeat goes by doubling and then halves; later ones begin where the one before ended.
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
        """Searches on each path in turn, twice at most: a search takes some minutes."""
        found: dict[str, list[int]] = {path.name: [] for path in paths}
        all_measured = {path.name: Measured(self.name, path.name) for path in paths}
        with rig.running(paths, lambda path: path.start(rig.upstream)) as running:
            for _ in range(min(rig.repeats, 2)):
                for name, way in running.items():
                    first, stride = (max(0, found[name][-1]), 2) if found[name] else (FIRST_RUNG, FIRST_STRIDE)
                    # The short form only shows that it runs.
                    rungs = 1 if rig.is_short else len(RUNGS)
                    holds = self._holder(way, rig, all_measured[name])
                    found[name].append(highest(0 if rig.is_short else first, stride, rungs, holds))
                    rig.say(f"{self.name} {name}: {_sessions(found[name][-1])} sessions")
        for name, answers in found.items():
            all_measured[name].figures = {SESSIONS.name: Spread.of([float(_sessions(rung)) for rung in answers])}
        return list(all_measured.values())

    def _holder(self, way: Running, rig: Rig, measured: Measured) -> Callable[[int], bool]:
        return lambda rung: self._holds(RUNGS[rung], way, rig, measured)

    def _holds(self, sessions: int, way: Running, rig: Rig, measured: Measured) -> bool:
        stagger_s = sessions / STARTS_PER_S
        words = 20 if rig.is_short else round((stagger_s + TOGETHER_S) / PACE_S)
        shape = Shape(words=words, pace_s=PACE_S)
        plan = {**way.plan, "workers": sessions, "turns": 1, "warmup_turns": 1, "words": words}
        plan |= {"stall_s": STALL_S, "stagger_s": stagger_s, "prefix": f"n{next(_rounds)}"}
        taken = sample(plan, shape, way, rig.upstream)
        loaded = taken.loaded
        measured.rig_share = max(measured.rig_share, taken.rig_share)
        if taken.rig_share > NEAR_A_CEILING:
            measured.flags.append(f"the rig itself was near its ceiling at {sessions} sessions")
        held = not (loaded.lost or loaded.failed or loaded.stalls)
        why = "" if held else f": {loaded.stalls} stalls, {loaded.lost} lost, {loaded.failed} failed"
        rig.say(f"{self.name} {measured.path}: {sessions} sessions {'held' if held else 'did not hold'}{why}")
        return held


_rounds = itertools.count()


def _sessions(rung: int) -> int:
    return RUNGS[rung] if rung >= 0 else 0


def highest(first: int, stride: int, rungs: int, holds: Callable[[int], bool]) -> int:
    """Finds the highest rung that holds: walks from rung `first` by strides, then halves what is left.

    Returns: a rung that held, below one that did not or the end; -1 where none did.
    """
    held, failed = -1, rungs
    asked = first
    while held < asked < failed:
        if holds(asked):
            held = asked
        else:
            failed = asked
        if held < 0:
            asked = max(0, failed - stride)
        elif failed == rungs:
            asked = min(rungs - 1, held + stride)
        else:
            asked = (held + failed) // 2
    return held

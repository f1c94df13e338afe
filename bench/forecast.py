"""How long a run still takes, by how long its cells took in the run before."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

ENOUGH = 3
"""Cells after which a guess about others is one."""


class Forecast:
    """Told which cells are to come and how long each took. `former`: seconds by cell, of another run."""

    def __init__(self, cells: Sequence[str], former: Mapping[str, float]) -> None:
        self.to_come = list(cells)
        self.seconds: dict[str, float] = {}
        self._former = former

    def took(self, cell: str, seconds: float) -> None:
        """A cell is done."""
        self.to_come.remove(cell)
        self.seconds[cell] = seconds

    @property
    def left_s(self) -> float:
        """Seconds for all cells to come; one of which nothing is known counts like the middle one. NaN: too early."""
        known = [self._former[name] for name in self.to_come if name in self._former]
        unknown = len(self.to_come) - len(known)
        if not unknown:
            return sum(known)
        seen = [*self._former.values(), *self.seconds.values()]
        return sum(known) + unknown * statistics.median(seen) if len(seen) >= ENOUGH else math.nan

    def told(self) -> str:
        """As words."""
        return "time left unknown" if math.isnan(self.left_s) else f"about {math.ceil(self.left_s / 60)} min left"


def former_seconds(path: Path, settings: Mapping[str, object]) -> dict[str, float]:
    """What a results file says of a run with the same settings; nothing where there is none."""
    try:
        results = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    if results.get("settings") != settings:
        return {}
    return {str(name): float(seconds) for name, seconds in results.get("seconds", {}).items()}

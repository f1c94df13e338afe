"""Medians and spreads."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over its repeats. `samples` is how many single measurements stand behind it, 0 where it is a count."""

    median: float
    least: float
    most: float
    repeats: int
    samples: int = 0

    @classmethod
    def of(cls, values: Sequence[float], samples: int = 0, pooled: float | None = None) -> "Spread":
        """Args: `pooled` replaces the median where a quantile of all repeats together says more than that of each."""
        known = [value for value in values if not math.isnan(value)]
        if not known:
            return cls(math.nan, math.nan, math.nan, 0, samples)
        middle = statistics.median(known) if pooled is None else pooled
        return cls(middle, min(known), max(known), len(known), samples)


def short(value: float) -> str:
    """A number in as many digits as mean something: three, and never an exponent."""
    if math.isnan(value):
        return "-"
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(digits, 3)}f}"

"""How many blocks may go while a share of what the model knows is retained, of the numbers that were measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from layerimp.report.retained import Retained
from layerimp.report.statistics import Interval, interval

LEVELS = (0.9, 0.95, 0.99)
"""The shares that have to be retained."""
ROUNDING = 1e-9
"""By so much a share may lie below a level, since sums are rounded."""


@dataclass(frozen=True)
class Level:
    """How many blocks may go at one level.

    Attributes:
        counts: By repeat, the largest number that was measured such that every smaller one that was holds as well.
        mean: Their mean, and its interval over the repeats.
        at_least: Whether all that was measured holds in some repeat, so that the mean may be too low.
    """

    counts: Sequence[int]
    mean: Interval
    at_least: bool


@dataclass(frozen=True)
class Removable:
    """How many blocks may go by the choice of one scorer, healed or not.

    Attributes:
        measured: The numbers of removed blocks at which it was measured, from few to many.
        levels: By share that has to be retained.
    """

    measured: Sequence[int]
    levels: Mapping[float, Level]


def worst_by_repeat(found: Retained) -> list[float] | None:
    """What each repeat's model retains: the lower of its two means. None where that is not known."""
    if found.worst is None:
        return None
    means = [one.points for one in (found.likelihood, found.accuracy) if one is not None]
    lowest: list[float] = np.min(means, axis=0).tolist()
    return lowest


def removable(curves: Sequence[Mapping[int, float]]) -> Removable | None:
    """How many blocks may go, by level.

    Args:
        curves: By repeat, what is retained by the number of blocks that were removed.

    Returns:
        None where no number was measured in every repeat.
    """
    measured = sorted(set.intersection(*map(set, curves))) if curves else []
    if not measured:
        return None
    levels = {}
    for level in LEVELS:
        counts = [_most(curve, measured, level - ROUNDING) for curve in curves]
        mean = interval([float(count) for count in counts])
        if mean.low is not None:
            mean = replace(mean, low=max(0.0, mean.low))  # no fewer than none can go
        levels[level] = Level(counts, mean, measured[-1] in counts)
    return Removable(measured, levels)


def _most(curve: Mapping[int, float], measured: Sequence[int], level: float) -> int:
    """The last number before the first at which too little is retained; 0 where that is the first of all."""
    most = 0
    for count in measured:
        if curve[count] < level:
            break
        most = count
    return most

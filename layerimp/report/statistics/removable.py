"""How many blocks may be removed while a share of the quality is retained, among the numbers that were measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from layerimp.report.statistics.intervals import Interval, interval
from layerimp.report.statistics.retained import Retained

LEVELS = (0.9, 0.95, 0.99)
"""The levels: shares that have to be retained."""
ROUNDING = 1e-9
"""A share may lie below a level by this amount, since sums are rounded."""


@dataclass(frozen=True)
class Level:
    """How many blocks may be removed at one level.

    Attributes:
        counts: By repeat, the largest measured number of blocks such that it and all smaller measured numbers retain
            the share.
        mean: The mean of the counts, and its interval over the repeats.
        at_least: Whether in some repeat all measured numbers retain the share, so that the mean may be too low.
    """

    counts: Sequence[int]
    mean: Interval
    at_least: bool


@dataclass(frozen=True)
class Removable:
    """How many blocks may be removed by one scorer, with or without healing.

    Attributes:
        measured: The numbers of removed blocks that were measured, in ascending order.
        levels: The results, by the share that has to be retained.
    """

    measured: Sequence[int]
    levels: Mapping[float, Level]


def worst_by_repeat(found: Retained) -> list[float] | None:
    """Return what the model of each repeat retains, as the lower of its two means; None if not known."""
    if found.worst is None:
        return None
    means = [one.points for one in (found.likelihood, found.accuracy) if one is not None]
    lowest: list[float] = np.min(means, axis=0).tolist()
    return lowest


def removable(curves: Sequence[Mapping[int, float]]) -> Removable | None:
    """Find how many blocks may be removed, by level.

    Args:
        curves: For each repeat, what is retained, by the number of removed blocks.

    Returns:
        The result; None if no number was measured in every repeat.
    """
    measured = sorted(set.intersection(*map(set, curves))) if curves else []
    if not measured:
        return None
    levels = {}
    for level in LEVELS:
        counts = [_most(curve, measured, level - ROUNDING) for curve in curves]
        mean = interval([float(count) for count in counts])
        if mean.low is not None:
            mean = replace(mean, low=max(0.0, mean.low))  # a number of blocks is not negative
        levels[level] = Level(counts, mean, measured[-1] in counts)
    return Removable(measured, levels)


def _most(curve: Mapping[int, float], measured: Sequence[int], level: float) -> int:
    """Return the last number before the first at which too little is retained; 0 if the first number fails."""
    most = 0
    for count in measured:
        if curve[count] < level:
            break
        most = count
    return most

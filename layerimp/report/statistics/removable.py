"""How many blocks may be removed while a share of the quality is retained, among the numbers that were measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from layerimp.report.results.rows import Level
from layerimp.report.statistics.intervals import interval
from layerimp.report.statistics.retained import Retained

LEVELS = (0.9, 0.95, 0.99)
"""The levels: shares that have to be retained."""
ROUNDING = 1e-9
"""A share may lie below a level by this amount, since sums are rounded."""


def worst_by_repeat(retained: Retained) -> list[float] | None:
    """Return what the model of each repeat retains, as the lower of its two means; None if not known."""
    if retained.worst is None:
        return None
    means = [kept.points for kept in (retained.likelihood, retained.accuracy) if kept is not None]
    lowest: list[float] = np.min(means, axis=0).tolist()
    return lowest


def removable(curves: Sequence[Mapping[int, float]]) -> tuple[list[int], dict[float, Level]]:
    """Find how many blocks may be removed, by level.

    Args:
        curves: For each repeat, what is retained, by the number of removed blocks.

    Returns:
        The numbers that were measured in every repeat, in ascending order, and the results by level; both empty if
        there is no such number.
    """
    measured = sorted(set.intersection(*map(set, curves))) if curves else []
    levels = {}
    for share in LEVELS if measured else ():
        counts = [_most(curve, measured, share - ROUNDING) for curve in curves]
        mean = interval([float(count) for count in counts])
        if mean.low is not None:
            mean = mean.model_copy(update={"low": max(0.0, mean.low)})  # a number of blocks is not negative
        levels[share] = Level(counts=counts, mean=mean, at_least=measured[-1] in counts)
    return measured, levels


def _most(curve: Mapping[int, float], measured: Sequence[int], level: float) -> int:
    """Return the last number before the first at which too little is retained; 0 if the first number fails."""
    most = 0
    for count in measured:
        if curve[count] < level:
            break
        most = count
    return most

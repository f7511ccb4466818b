"""Means with confidence intervals, differences, and agreement, over the repeats of a grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import stats

LEVEL = 0.95
"""Of every confidence interval."""


@dataclass(frozen=True)
class Interval:
    """A mean, and its confidence interval.

    Attributes:
        mean: The mean.
        half: Half the width of the interval; None where one value, or an infinite one, says nothing of it.
        count: Of how many values.
    """

    mean: float
    half: float | None
    count: int

    @property
    def low(self) -> float | None:
        """The lower end."""
        return None if self.half is None else self.mean - self.half

    @property
    def high(self) -> float | None:
        """The upper end."""
        return None if self.half is None else self.mean + self.half


def interval(values: Sequence[float]) -> Interval:
    """The mean of independent values, and its interval by Student's t."""
    count = len(values)
    if count > 1 and min(values) == max(values) and math.isfinite(values[0]):
        return Interval(values[0], 0.0, count)  # exactly: sums of equal values are rounded
    mean = sum(values) / count  # not fsum, which refuses infinities
    if count < 2 or not all(map(math.isfinite, values)):
        return Interval(mean, None, count)
    error = float(stats.sem(values))
    return Interval(mean, float(stats.t.ppf((1 + LEVEL) / 2, count - 1)) * error, count)


def difference(one: Sequence[float], other: Sequence[float], *, paired: bool) -> Interval:
    """The mean of `one` less that of `other`.

    Args:
        one: Values over repeats.
        other: Values over repeats, or a single one that no repeat changes.
        paired: Whether the values of one repeat come from the same text, so that they are compared one by one;
            otherwise the two are independent (Welch).
    """
    if len(one) == 1 and len(other) == 1:
        return Interval(one[0] - other[0], None, 1)
    if len(other) == 1 or len(one) == 1 or (paired and len(one) == len(other)):
        count = max(len(one), len(other))
        first, second = (list(values) * count if len(values) == 1 else list(values) for values in (one, other))
        return interval([a - b for a, b in zip(first, second, strict=True)])
    mean = sum(one) / len(one) - sum(other) / len(other)
    count = min(len(one), len(other))
    if not all(map(math.isfinite, (*one, *other))):
        return Interval(mean, None, count)
    spreads = [float(np.var(values, ddof=1)) / len(values) for values in (one, other)]
    if not any(spreads):
        return Interval(mean, 0.0, count)
    # The degrees of freedom of Welch and Satterthwaite.
    freedom = sum(spreads) ** 2 / sum(s**2 / (len(v) - 1) for s, v in zip(spreads, (one, other), strict=True))
    return Interval(mean, float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * math.sqrt(sum(spreads)), count)


def with_noise(found: Interval, stderr: float | None) -> Interval:
    """The interval widened by an independent standard error, such as that over the documents of a task."""
    if stderr is None or not math.isfinite(stderr):
        return found
    noise = float(stats.norm.ppf((1 + LEVEL) / 2)) * stderr
    return Interval(found.mean, noise if found.half is None else math.hypot(found.half, noise), found.count)


def tells(found: Interval) -> bool:
    """Whether a difference is significant: its interval is known, and 0 is outside."""
    return found.half is not None and abs(found.mean) > found.half


def jaccard(one: AbstractSet[int], other: AbstractSet[int]) -> float:
    """How much of two sets is common to both: 1 for equal ones, 0 for disjoint ones."""
    return len(one & other) / len(one | other) if one | other else 1.0


@dataclass(frozen=True)
class Stability:
    """How much the sets that the repeats gave agree.

    Attributes:
        jaccard: The mean over all pairs of repeats.
        same: The share of pairs that are equal: the chance that another draw of text removes the same blocks.
    """

    jaccard: float
    same: float

    @classmethod
    def of(cls, sets: Sequence[AbstractSet[int]]) -> Stability | None:
        """The stability of the sets of several repeats; None for a single one."""
        pairs = list(combinations(sets, 2))
        if not pairs:
            return None
        return cls(sum(jaccard(*pair) for pair in pairs) / len(pairs), sum(a == b for a, b in pairs) / len(pairs))


def tau(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Kendall's tau-b of two rankings of the same blocks; None where one of them ranks nothing."""
    found = float(stats.kendalltau(one, other).statistic)
    return found if math.isfinite(found) else None


def mean_tau(ones: Sequence[Sequence[float]], others: Sequence[Sequence[float]]) -> float | None:
    """The mean of Kendall's tau over all pairs of a ranking of the one kind with one of the other."""
    taus = [found for one in ones for other in others if (found := tau(one, other)) is not None]
    return sum(taus) / len(taus) if taus else None


def self_tau(rankings: Sequence[Sequence[float]]) -> float | None:
    """The mean of Kendall's tau over all pairs of repeats; None for a single one."""
    taus = [found for one, other in combinations(rankings, 2) if (found := tau(one, other)) is not None]
    return sum(taus) / len(taus) if taus else None

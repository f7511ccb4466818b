"""Means with confidence intervals, differences with p-values, and the correction for many comparisons."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np
from scipy.optimize import brentq
from scipy.special import stdtrit

from layerimp.report.results.measures import LEVEL, Difference, Interval

Name = TypeVar("Name", bound=Hashable)

# Quantiles of Student's t are those of scipy.special: scipy.stats takes hundreds of times longer for the same numbers.


def interval(values: Sequence[float]) -> Interval:
    """Return the mean of independent values, and its interval by Student's t."""
    count = len(values)
    if count > 1 and min(values) == max(values) and math.isfinite(values[0]):
        return Interval(
            mean=values[0], low=values[0], high=values[0], count=count
        )  # exact, while sums of equal values are rounded
    mean = sum(values) / count  # not fsum, which rejects infinities
    if count < 2 or not all(map(math.isfinite, values)):
        return Interval(mean=mean, count=count)
    half = times_stderr(count) * float(np.std(values, ddof=1)) / math.sqrt(count)
    return Interval(mean=mean, low=mean - half, high=mean + half, count=count)


def times_stderr(count: int | None) -> float:
    """Return half the width of a 95 % interval in standard errors, by Student's t if the count is known."""
    freedom = math.inf if count is None or count < 2 else count - 1
    return float(stdtrit(freedom, (1 + LEVEL) / 2))


def with_errors(mean: float, errors: Sequence[tuple[float, float]], least: float = 0.0) -> Difference:
    """Make a difference with independent errors: each widens the interval by its own t, and the squares add up.

    The interval is wider than that of Welch and Satterthwaite, which is too narrow if a few repeats happen to agree.

    Args:
        mean: The difference.
        errors: The standard errors with their degrees of freedom; empty if the error is not known.
        least: The smallest p-value that the number of documents allows.
    """
    if not errors:
        return Difference(mean=mean)
    known = [(error, freedom) for error, freedom in errors if error > 0]
    if not known:
        return Difference(mean=mean, low=mean, high=mean, p=1.0 if mean == 0 else least)

    def half(log_p: float) -> float:
        return math.hypot(*(-error * float(stdtrit(freedom, math.exp(log_p) / 2)) for error, freedom in known))

    width, p = half(math.log(1 - LEVEL)), 0.0  # 0 where it is too small for floating point
    # The end of the search is no farther off than necessary: far out, some quantiles of t are NaN.
    lowest = next((end for end in (-1.0, -4.0, -16.0, -64.0, -256.0, -700.0) if half(end) >= abs(mean)), None)
    if lowest is not None:
        p = math.exp(float(brentq(lambda log_p: half(log_p) - abs(mean), lowest, 0.0)))
    return Difference(mean=mean, low=mean - width, high=mean + width, p=max(p, least))


def corrected(contrasts: Mapping[Name, Difference]) -> dict[Name, Difference]:
    """Return the differences of a family, with known p-values corrected for the number of comparisons."""
    values = holm({name: contrast.p for name, contrast in contrasts.items() if contrast.p is not None})
    return {name: contrast.model_copy(update={"p": values.get(name)}) for name, contrast in contrasts.items()}


def holm(values: Mapping[Name, float]) -> dict[Name, float]:
    """Return the p-values of a family of comparisons, corrected for their number (Holm 1979)."""
    corrected: dict[Name, float] = {}
    least = 0.0
    for place, name in enumerate(sorted(values, key=lambda name: values[name])):
        least = max(least, min(1.0, (len(values) - place) * values[name]))
        corrected[name] = least
    return corrected

"""How far the rankings of scorers agree, and the removed sets of repeats."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from itertools import combinations

import numpy as np

from layerimp.report.results.models import Stability


def jaccard(one: AbstractSet[object], other: AbstractSet[object]) -> float:
    """Return the Jaccard index of two sets: 1 for equal sets, 0 for disjoint sets."""
    return len(one & other) / len(one | other) if one | other else 1.0


def stability(sets: Sequence[AbstractSet[object]]) -> Stability | None:
    """Return the stability of the removed sets of several repeats; None for a single repeat."""
    pairs = list(combinations(sets, 2))
    if not pairs:
        return None
    index = sum(jaccard(*pair) for pair in pairs) / len(pairs)
    return Stability(jaccard=index, same=sum(a == b for a, b in pairs) / len(pairs))


def tau(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Return Kendall's tau-b of two rankings of the same blocks; None if one of them gives all the same rank."""
    orders = [np.sign(np.subtract.outer(ranking, ranking)) for ranking in (one, other)]  # of each pair of blocks
    untied = math.prod(float(np.abs(order).sum()) for order in orders)
    return float((orders[0] * orders[1]).sum()) / math.sqrt(untied) if untied else None


def mean_tau(ones: Sequence[Sequence[float]], others: Sequence[Sequence[float]]) -> float | None:
    """Return the mean of Kendall's tau over all pairs of a ranking from `ones` and one from `others`."""
    return _mean(tau(one, other) for one in ones for other in others)


def self_tau(rankings: Sequence[Sequence[float]]) -> float | None:
    """Return the mean of Kendall's tau over all pairs of repeats; None for a single repeat."""
    return _mean(tau(one, other) for one, other in combinations(rankings, 2))


def _mean(taus: Iterable[float | None]) -> float | None:
    known = [kendall for kendall in taus if kendall is not None]
    return sum(known) / len(known) if known else None

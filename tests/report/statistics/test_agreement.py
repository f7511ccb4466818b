"""How far rankings and removed sets agree, against computations by hand and by scipy."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from layerimp.report.statistics.agreement import mean_tau, self_tau, stability, tau


def test_stability_by_hand() -> None:
    found = stability([frozenset({1, 2}), frozenset({1, 2}), frozenset({2, 3})])
    assert found is not None
    assert found.jaccard == pytest.approx((1 + 1 / 3 + 1 / 3) / 3)
    assert found.same == pytest.approx(1 / 3)
    assert stability([frozenset({1})]) is None


@given(st.permutations(range(6)))
def test_tau_counts_the_pairs_that_agree(order: list[int]) -> None:
    pairs = list(combinations(range(6), 2))
    agree = sum((order[a] < order[b]) == (a < b) for a, b in pairs)
    assert tau(list(range(6)), order) == pytest.approx((2 * agree - len(pairs)) / len(pairs))


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=9))
def test_tau_counts_ties_as_scipy_does(pairs: list[tuple[int, int]]) -> None:
    one, other = zip(*pairs, strict=True)
    expected = float(stats.kendalltau(one, other).statistic)
    assert tau(one, other) == (None if math.isnan(expected) else pytest.approx(expected))


def test_tau_over_repeats() -> None:
    up, down = [1.0, 2.0, 3.0], [3.0, 2.0, 1.0]
    assert self_tau([up, up, down]) == pytest.approx((1 - 1 - 1) / 3)
    assert mean_tau([up], [up, down]) == pytest.approx(0.0)
    assert self_tau([up]) is None
    assert tau([1.0, 1.0, 1.0], up) is None

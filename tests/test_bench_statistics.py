"""The statistics of a grid, against definitions and against scipy's own tests."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from layerimp.report.statistics import (
    Interval,
    Stability,
    difference,
    interval,
    mean_tau,
    self_tau,
    tau,
    tells,
    with_noise,
)

VALUES = st.lists(st.floats(-100, 100), min_size=2, max_size=8).filter(lambda values: max(values) - min(values) > 1e-3)


def test_an_interval_by_hand() -> None:
    # mean 3, s = sqrt(2.5), t(0.975, 4) = 2.7764: half = 2.7764 * sqrt(2.5 / 5)
    found = interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert found.mean == 3.0
    assert found.half == pytest.approx(2.7764451 * math.sqrt(0.5))
    assert found.count == 5


@given(VALUES, VALUES)
def test_independent_values_differ_as_in_welchs_test(one: list[float], other: list[float]) -> None:
    expected = stats.ttest_ind(one, other, equal_var=False).confidence_interval(0.95)
    found = difference(one, other, paired=False)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-6, abs=1e-9)


@given(st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=2, max_size=8))
def test_paired_values_differ_as_in_the_paired_test(pairs: list[tuple[float, float]]) -> None:
    one, other = (list(values) for values in zip(*pairs, strict=True))
    gaps = [a - b for a, b in pairs]
    if max(gaps) - min(gaps) < 1e-3:
        return
    expected = stats.ttest_rel(one, other).confidence_interval(0.95)
    found = difference(one, other, paired=True)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-6, abs=1e-9)


@given(VALUES, st.floats(-100, 100))
def test_a_constant_is_compared_as_in_the_test_of_one_sample(values: list[float], constant: float) -> None:
    expected = stats.ttest_1samp(values, constant).confidence_interval(0.95)
    found = difference(values, [constant], paired=False)
    assert found.low is not None
    assert found.low + constant == pytest.approx(expected.low, rel=1e-6, abs=1e-7)


@given(VALUES)
def test_a_difference_turned_round_only_changes_its_sign(values: list[float]) -> None:
    others = [value * 2 + 1 for value in values]
    for paired in (True, False):
        there, back = difference(values, others, paired=paired), difference(others, values, paired=paired)
        assert there.mean == pytest.approx(-back.mean)
        assert there.half == pytest.approx(back.half)


def test_one_value_has_no_interval() -> None:
    assert interval([1.0]) == Interval(1.0, None, 1)
    assert interval([1.0, math.inf]) == Interval(math.inf, None, 2)
    assert difference([2.0], [1.0], paired=False) == Interval(1.0, None, 1)
    assert not tells(Interval(1.0, None, 1))


def test_noise_of_the_documents_widens_an_interval() -> None:
    assert with_noise(Interval(1.0, 3.0, 5), 4.0 / 1.959963984540054).half == pytest.approx(5.0)
    assert with_noise(Interval(1.0, None, 1), 1.0).half == pytest.approx(1.959963984540054)
    assert with_noise(Interval(1.0, 3.0, 5), None).half == 3.0


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    generator = stats.norm(5, 2)
    samples = generator.rvs(size=(2000, 5), random_state=0)
    found = [interval(list(sample)) for sample in samples]
    covered = sum(one.low <= 5 <= one.high for one in found if one.low is not None and one.high is not None)
    assert 0.94 < covered / 2000 < 0.96


def test_stability_by_hand() -> None:
    found = Stability.of([frozenset({1, 2}), frozenset({1, 2}), frozenset({2, 3})])
    assert found is not None
    assert found.jaccard == pytest.approx((1 + 1 / 3 + 1 / 3) / 3)
    assert found.same == pytest.approx(1 / 3)
    assert Stability.of([frozenset({1})]) is None


@given(st.permutations(range(6)))
def test_tau_counts_the_pairs_that_agree(order: list[int]) -> None:
    pairs = list(combinations(range(6), 2))
    agree = sum((order[a] < order[b]) == (a < b) for a, b in pairs)
    assert tau(list(range(6)), order) == pytest.approx((2 * agree - len(pairs)) / len(pairs))


def test_tau_over_repeats() -> None:
    up, down = [1.0, 2.0, 3.0], [3.0, 2.0, 1.0]
    assert self_tau([up, up, down]) == pytest.approx((1 - 1 - 1) / 3)
    assert mean_tau([up], [up, down]) == pytest.approx(0.0)
    assert self_tau([up]) is None
    assert tau([1.0, 1.0, 1.0], up) is None


@given(st.floats(-1e6, 1e6), st.integers(2, 7))
def test_equal_values_leave_nothing_open(value: float, count: int) -> None:
    assert interval([value] * count) == Interval(value, 0.0, count)
    assert difference([value] * count, [value], paired=False) == Interval(0.0, 0.0, count)


@given(st.lists(st.sampled_from([0.0, 1.0, math.inf]), min_size=1, max_size=4), st.booleans())
def test_infinite_values_decide_nothing(values: list[float], paired: bool) -> None:
    assert not tells(difference([math.inf, *values], [*values, math.inf], paired=paired))

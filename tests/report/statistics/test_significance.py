"""The statistics of a grid, against definitions and against scipy's own tests."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from layerimp.report.results.measures import Interval
from layerimp.report.statistics.significance import interval


def test_an_interval_by_hand() -> None:
    # mean 3, s = sqrt(2.5), t(0.975, 4) = 2.7764: half = 2.7764 * sqrt(2.5 / 5)
    found = interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert found.mean == 3.0
    assert found.high == pytest.approx(3.0 + 2.7764451 * math.sqrt(0.5))
    assert found.low == pytest.approx(3.0 - 2.7764451 * math.sqrt(0.5))
    assert found.count == 5


def test_one_value_has_no_interval() -> None:
    assert interval([1.0]) == Interval(mean=1.0, low=None, high=None, count=1)
    assert interval([1.0, math.inf]) == Interval(mean=math.inf, low=None, high=None, count=2)


def test_an_interval_on_another_scale_keeps_its_ends() -> None:
    found = interval([1.0, 2.0, 3.0]).mapped(math.exp)
    there = interval([1.0, 2.0, 3.0])
    assert there.low is not None
    assert (found.mean, found.low) == (math.exp(2.0), math.exp(there.low))
    assert interval([1.0]).mapped(math.exp) == Interval(mean=math.e, low=None, high=None, count=1)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    generator = stats.norm(5, 2)
    samples = generator.rvs(size=(2000, 5), random_state=0)
    found = [interval(list(sample)) for sample in samples]
    covered = sum(one.low <= 5 <= one.high for one in found if one.low is not None and one.high is not None)
    assert 0.94 < covered / 2000 < 0.96


@given(st.floats(-1e6, 1e6), st.integers(2, 7))
def test_equal_values_leave_nothing_open(value: float, count: int) -> None:
    assert interval([value] * count) == Interval(mean=value, low=value, high=value, count=count)

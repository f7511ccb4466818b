"""Intervals, rank agreement, and metrics as measures, checked against independent computations."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from layerimp.metric import Metric, Stratum
from layerimp.pipeline.document_halves import DocumentHalves
from layerimp.report.results.measures import Interval
from layerimp.report.statistics import flips, flips_by_task, interval, mean_tau, measured, self_tau, stability, tau


def test_an_interval_by_hand() -> None:
    # mean 3, s = sqrt(2.5), t(0.975, 4) = 2.7764: half = 2.7764 * sqrt(2.5 / 5)
    estimate = interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert estimate.mean == 3.0
    assert estimate.high == pytest.approx(3.0 + 2.7764451 * math.sqrt(0.5))
    assert estimate.low == pytest.approx(3.0 - 2.7764451 * math.sqrt(0.5))
    assert estimate.count == 5


def test_one_value_has_no_interval() -> None:
    assert interval([1.0]) == Interval(mean=1.0, low=None, high=None, count=1)
    assert interval([1.0, math.inf]) == Interval(mean=math.inf, low=None, high=None, count=2)


def test_an_interval_on_another_scale_keeps_its_ends() -> None:
    mapped = interval([1.0, 2.0, 3.0]).mapped(math.exp)
    there = interval([1.0, 2.0, 3.0])
    assert there.low is not None
    assert (mapped.mean, mapped.low) == (math.exp(2.0), math.exp(there.low))
    assert interval([1.0]).mapped(math.exp) == Interval(mean=math.e, low=None, high=None, count=1)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    generator = stats.norm(5, 2)
    samples = generator.rvs(size=(2000, 5), random_state=0)
    estimates = [interval(list(sample)) for sample in samples]
    covered = sum(
        estimate.low <= 5 <= estimate.high
        for estimate in estimates
        if estimate.low is not None and estimate.high is not None
    )
    assert 0.94 < covered / 2000 < 0.96


@given(st.floats(-1e6, 1e6), st.integers(2, 7))
def test_equal_values_leave_nothing_open(value: float, count: int) -> None:
    assert interval([value] * count) == Interval(mean=value, low=value, high=value, count=count)


def test_an_average_over_strata_has_the_degrees_of_freedom_of_its_documents_in_them() -> None:
    metric = Metric("t", "f1", 0.5, 0.1, documents=(0.9, 0.1) * 3, strata=(Stratum(2, 1 / 3),) * 3)
    shown = measured(metric)
    assert shown.high == pytest.approx(0.5 + 0.1 * stats.t.ppf(0.975, 3))
    assert measured(replace(metric, strata=())).high == pytest.approx(0.5 + 0.1 * stats.t.ppf(0.975, 5))


@given(st.integers(2, 40).flatmap(lambda count: st.tuples(st.integers(0, count), st.just(count))))
def test_a_share_of_right_answers_has_wilsons_interval(answers: tuple[int, int]) -> None:
    right, count = answers
    shown = measured(Metric("t", "acc", right / count, 0.1, documents=(1.0,) * right + (0.0,) * (count - right)))
    expected = proportion_confint(right, count, method="wilson")
    assert (shown.low, shown.high) == pytest.approx(expected, abs=1e-12)


def test_stability_by_hand() -> None:
    overlap = stability([frozenset({1, 2}), frozenset({1, 2}), frozenset({2, 3})])
    assert overlap is not None
    assert overlap.jaccard == pytest.approx((1 + 1 / 3 + 1 / 3) / 3)
    assert overlap.same == pytest.approx(1 / 3)
    assert stability([frozenset({1})]) is None


@given(st.permutations(range(6)))
def test_tau_counts_the_pairs_that_agree(order: list[int]) -> None:
    pairs = list(combinations(range(6), 2))
    agree = sum((order[a] < order[b]) == (a < b) for a, b in pairs)
    assert tau(list(range(6)), order) == pytest.approx((2 * agree - len(pairs)) / len(pairs))


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=9))
def test_tau_counts_ties_as_scipy_does(pairs: list[tuple[int, int]]) -> None:
    first, second = zip(*pairs, strict=True)
    expected = float(stats.kendalltau(first, second).statistic)
    assert tau(first, second) == (None if math.isnan(expected) else pytest.approx(expected))


def test_tau_over_repeats() -> None:
    up, down = [1.0, 2.0, 3.0], [3.0, 2.0, 1.0]
    assert self_tau([up, up, down]) == pytest.approx((1 - 1 - 1) / 3)
    assert mean_tau([up], [up, down]) == pytest.approx(0.0)
    assert self_tau([up]) is None
    assert tau([1.0, 1.0, 1.0], up) is None


RIGHT = (1.0, 1.0, 0.0, 0.0, 0.0, 1.0)
INTACT = Metric("t", "acc", 0.5, documents=RIGHT, answers=(0, 1, 2, 3, 0, 1), hashes=(11, 12, 13, 14, 15, 16))
MODEL = replace(INTACT, value=1 / 3, documents=(1.0, 0.0, 1.0, 0.0, 0.0, 0.0), answers=(0, 2, 1, 3, 1, 3))


def test_a_flip_is_another_answer_right_or_wrong() -> None:
    flipped = flips(INTACT, [MODEL])
    assert flipped is not None
    assert (flipped.share, flipped.to_wrong, flipped.to_right) == (4 / 6, 2, 1)
    same = flips(INTACT, [INTACT])
    assert same is not None
    assert (same.share, same.stderr, same.to_wrong, same.to_right) == (0.0, 0.0, 0, 0)


def test_an_average_of_tasks_weights_the_shares_of_the_tasks() -> None:
    strata = (Stratum(2, 0.5), Stratum(4, 0.5))
    flipped = flips(replace(INTACT, strata=strata), [replace(MODEL, strata=strata)])
    assert flipped is not None
    assert flipped.share == pytest.approx((1 / 2 + 3 / 4) / 2)


def test_only_the_same_documents_that_are_right_or_wrong_have_flips() -> None:
    assert flips(INTACT, [replace(MODEL, hashes=(11, 12, 13, 14, 15, 17))]) is None
    assert flips(INTACT, [replace(MODEL, documents=(1.0, 0.5, 1.0, 0.0, 0.0, 0.0))]) is None
    assert flips(INTACT, [replace(MODEL, documents=None)]) is None


def test_where_lower_is_better_a_lower_value_is_right() -> None:
    intact, model = (
        replace(metric, documents=tuple(1 - right for right in metric.documents or ()), higher_is_better=False)
        for metric in (INTACT, MODEL)
    )
    wrong = flips(intact, [model])
    assert wrong is not None
    assert (wrong.share, wrong.to_wrong, wrong.to_right) == (4 / 6, 2, 1)


def test_repeats_are_averaged_document_by_document() -> None:
    """The repeats share the documents: the error is that of each document's mean."""
    other = replace(MODEL, documents=RIGHT, answers=(0, 1, 1, 3, 0, 1))
    flipped = flips(INTACT, [MODEL, other])
    assert flipped is not None
    means = [0, 0.5, 1, 0, 0.5, 0.5]
    assert flipped.share == pytest.approx(statistics.mean(means))
    assert flipped.stderr == pytest.approx(statistics.stdev(means) / 6**0.5)
    assert (flipped.to_wrong, flipped.to_right) == (1, 0.5)
    assert flips(INTACT, [MODEL, MODEL]) == flips(INTACT, [MODEL])
    assert flips(INTACT, [MODEL, replace(MODEL, documents=None)]) is None
    assert flips(INTACT, []) is None
    unknown = flips(INTACT, [MODEL, replace(MODEL, answers=None)])
    assert unknown is not None
    assert unknown.share is unknown.stderr is None
    assert unknown.to_wrong == 2


def test_flips_by_task_are_those_of_metrics_that_all_models_have() -> None:
    em = replace(INTACT, name="em")
    loss = Metric("t", "loss", 2.0, higher_is_better=False)
    intact = {(metric.task, metric.name): metric for metric in (INTACT, em, loss)}
    tasks = flips_by_task(intact, [{("t", "acc"): MODEL, ("t", "em"): em, ("t", "loss"): loss}, {("t", "acc"): MODEL}])
    assert tasks == {"t": {"acc": flips(INTACT, [MODEL])}}


def test_the_halves_of_a_search_keep_their_answers() -> None:
    before, after = DocumentHalves.of([INTACT]), DocumentHalves.of([MODEL])
    parts = [
        flips(ours, [theirs])
        for half in ("search", "confirmation")
        for ours, theirs in zip(getattr(before, half), getattr(after, half), strict=True)
    ]
    assert sum(part.to_wrong for part in parts if part) == 2
    assert sum(3 * (part.share or 0) for part in parts if part) == pytest.approx(4)

"""Differences of models on the same documents, against scipy, statsmodels and simulation."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from layerimp.evaluator import Likelihood, Metric, Stratum, mean_and_error
from layerimp.report.paired_bootstrap import DRAWS, Estimate, difference, resampled, unbeaten
from layerimp.report.statistics import Difference, holm, with_errors

VALUES = st.lists(st.floats(-100, 100), min_size=2, max_size=8).filter(lambda values: max(values) - min(values) > 1e-3)


def repeats(values: list[float]) -> Estimate:
    """A figure of several repeats, without the documents' values."""
    return Estimate(np.array(values))


def accuracy(right: list[int], task: str = "t") -> Metric:
    mean = sum(right) / len(right)
    return Metric(task, "acc", mean, 0.01, floor=0.5, documents=tuple(map(float, right)))


def scores(values: list[float], task: str = "t") -> Metric:
    return Metric(task, "f1", sum(values) / len(values), 0.01, documents=tuple(values))


def perplexity(totals: list[float], units: list[float], task: str = "t") -> Metric:
    likelihood = Likelihood(tuple(totals), tuple(units))
    return Metric(task, "ppl", likelihood.metric(likelihood.loss), 1.0, False, likelihood=likelihood)


def of_one_draw(first: Metric, second: Metric) -> Difference:
    """The difference of two models of one draw, by the documents."""
    return difference(Estimate.of([first]), Estimate.of([second]), paired=True)


# ---- over the draws of calibration text


@example([0.0, 1.5, 7.742782489673857, 24.981324036665782], [1.125, 79.3125, -46.3359375])  # a quantile far out is NaN
@given(VALUES, VALUES)
def test_independent_repeats_differ_as_in_welchs_test(first: list[float], second: list[float]) -> None:
    expected = stats.ttest_ind(first, second, equal_var=False)
    comparison = difference(repeats(first), repeats(second), paired=False)
    ends = expected.confidence_interval(0.95)
    assert (comparison.low, comparison.high) == pytest.approx((ends.low, ends.high), rel=1e-6, abs=1e-9)
    assert comparison.p == pytest.approx(expected.pvalue, rel=1e-5, abs=1e-12)


@given(st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=2, max_size=8))
def test_paired_repeats_differ_as_in_the_paired_test(pairs: list[tuple[float, float]]) -> None:
    first, second = (list(values) for values in zip(*pairs, strict=True))
    gaps = [a - b for a, b in pairs]
    if max(gaps) - min(gaps) < 1e-3:
        return
    expected = stats.ttest_rel(first, second)
    comparison = difference(repeats(first), repeats(second), paired=True)
    ends = expected.confidence_interval(0.95)
    assert (comparison.low, comparison.high) == pytest.approx((ends.low, ends.high), rel=1e-6, abs=1e-9)
    assert comparison.p == pytest.approx(expected.pvalue, rel=1e-5, abs=1e-12)


@given(VALUES, st.floats(-100, 100))
def test_a_constant_is_compared_as_in_the_test_of_one_sample(values: list[float], constant: float) -> None:
    expected = stats.ttest_1samp(values, constant).confidence_interval(0.95)
    comparison = difference(repeats(values), repeats([constant]), paired=False)
    assert comparison.low is not None
    assert comparison.low + constant == pytest.approx(expected.low, rel=1e-6, abs=1e-7)


@given(VALUES)
def test_a_difference_turned_round_only_changes_its_sign(values: list[float]) -> None:
    first, second = repeats(values), repeats([value * 2 + 1 for value in values])
    for paired in (True, False):
        there, back = difference(first, second, paired=paired), difference(second, first, paired=paired)
        assert (there.mean, there.p) == pytest.approx((-back.mean, back.p))
        assert there.low == pytest.approx(-back.high if back.high is not None else None)


def test_documents_widen_the_interval_of_the_repeats() -> None:
    rng = np.random.default_rng(0)
    documents = [[*rng.normal(mean, 1, 50)] for mean in (1.0, 1.2, 1.4)]
    both = [Estimate.of([scores(values) for values in documents]), Estimate.of([scores([0.0] * 50)])]
    comparison = difference(*both, paired=False)
    by_document = np.mean(documents, axis=0)
    half = math.hypot(
        stats.t.ppf(0.975, 2) * np.std([np.mean(values) for values in documents], ddof=1) / math.sqrt(3),
        stats.t.ppf(0.975, 49) * by_document.std(ddof=1) / math.sqrt(50),
    )
    assert comparison.high is not None
    assert comparison.high - comparison.mean == pytest.approx(half, rel=0.03)
    alone = difference(repeats([np.mean(values) for values in documents]), repeats([0.0]), paired=False)
    assert alone.high is not None
    assert alone.high < comparison.high


def test_the_p_value_is_the_level_at_which_the_interval_touches_zero() -> None:
    for mean in (0.1, 1.0, 5.0, 100.0):
        comparison = with_errors(mean, [(0.5, 3.0), (0.2, math.inf)])
        assert comparison.p is not None
        half = math.hypot(*(e * stats.t.isf(comparison.p / 2, f) for e, f in [(0.5, 3.0), (0.2, math.inf)]))
        assert half == pytest.approx(mean, rel=1e-6)
        assert comparison.tells == (comparison.low is not None and comparison.low > 0)
    assert with_errors(1e9, [(1e-9, math.inf)]).p == 0.0
    assert with_errors(1.0, []) == Difference(mean=1.0)


# ---- over the documents of one draw


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=2, max_size=60))
def test_right_and_wrong_are_compared_by_mcnemars_exact_test(pairs: list[tuple[int, int]]) -> None:
    first, second = (list(values) for values in zip(*pairs, strict=True))
    comparison = of_one_draw(accuracy(first), accuracy(second))
    table = [[pairs.count((1, 1)), pairs.count((1, 0))], [pairs.count((0, 1)), pairs.count((0, 0))]]
    assert comparison.p == pytest.approx(mcnemar(table, exact=True).pvalue)
    assert comparison.mean == pytest.approx(np.mean(first) - np.mean(second))
    assert comparison.low is not None
    assert comparison.high is not None
    assert comparison.low - 1e-12 <= comparison.mean <= comparison.high + 1e-12
    assert not (comparison.tells and comparison.low <= 0 <= comparison.high)


def test_the_interval_of_right_and_wrong_is_that_of_a_published_example() -> None:
    """The example of `ci.prop.ps` in the R package statpsych, by the authors of the interval."""
    both, first, second = [1] * 6 + [0] * 12, [1] * 26 + [0] * 4, [0] * 26 + [1] * 4
    models = (accuracy(both + own) for own in (first, second))
    comparison = of_one_draw(*models)
    assert (comparison.low, comparison.high) == pytest.approx((0.2548067, 0.6251933))


@pytest.mark.parametrize("shares", [(0.0, 0.05), (0.02, 0.02), (0.05, 0.1)])
def test_intervals_of_right_and_wrong_hold_the_difference_as_often_as_they_say(shares: tuple[float, float]) -> None:
    """`shares` of the documents are those that only the first model has right, and only the second."""
    rng, held, documents = np.random.default_rng(5), 0, 200
    for _ in range(100):
        kinds = rng.choice(3, documents, p=[*shares, 1 - sum(shares)])
        models = (accuracy([*(kinds == only).astype(int)]) for only in (0, 1))
        comparison = of_one_draw(*models)
        assert comparison.low is not None
        assert comparison.high is not None
        held += comparison.low <= shares[0] - shares[1] <= comparison.high
    assert held / 100 > 0.9


@pytest.mark.parametrize("counts", [(5, 1), (1, 5), (5, 3)])
def test_equal_repeats_count_as_one(counts: tuple[int, int]) -> None:
    """A scorer that removes the same in each repeat is one model, as in a run with a single draw."""
    models = [accuracy([1, 1, 1, 1, 1, 0]), accuracy([0, 0, 0, 0, 0, 0])]
    first, second = (Estimate.of([model] * count) for model, count in zip(models, counts, strict=True))
    comparison = difference(first, second, paired=False)
    assert comparison == of_one_draw(*models)
    assert comparison.p == pytest.approx(2 * 0.5**5)
    few = [Estimate.of([scores([value] * 3)] * count) for value, count in zip((0.2, 0.9), counts, strict=True)]
    assert difference(*few, paired=False).p == 0.25


def test_a_mean_is_compared_by_a_paired_bootstrap() -> None:
    rng = np.random.default_rng(1)
    values, shift = rng.random(80), rng.normal(0.05, 0.1, 80)
    comparison = of_one_draw(scores([*values]), scores([*(values - shift)]))
    expected = stats.bootstrap(
        (values, values - shift),
        lambda a, b, axis: a.mean(axis=axis) - b.mean(axis=axis),
        paired=True,
        n_resamples=4000,
    )
    assert comparison.low is not None
    assert comparison.high is not None
    assert (comparison.high - comparison.low) / 2 / stats.t.ppf(0.975, 79) == pytest.approx(
        expected.standard_error, rel=0.05
    )
    assert comparison.p == pytest.approx(stats.ttest_1samp(shift, 0).pvalue, rel=0.15)
    unpaired = math.hypot(values.std(ddof=1), (values - shift).std(ddof=1)) / math.sqrt(80)
    assert expected.standard_error < unpaired / 3


def test_perplexities_are_compared_in_the_loss_per_unit() -> None:
    rng = np.random.default_rng(2)
    units = rng.integers(20, 200, 60).astype(float)
    losses = rng.normal(3, 0.3, 60)
    gaps = rng.normal(0.1, 0.05, 60)
    ours = perplexity([*(-losses * units)], [*units])
    theirs = perplexity([*(-(losses + gaps) * units)], [*units])
    comparison = of_one_draw(theirs, ours)
    assert comparison.mean == pytest.approx(float((gaps * units).sum() / units.sum()))
    assert math.exp(comparison.mean) == pytest.approx(theirs.value / ours.value)
    # The ratio estimator: the residuals of the gaps, weighted by the units.
    residuals = (gaps - comparison.mean) * units
    error = math.sqrt(60 / 59 * (residuals**2).sum()) / units.sum()
    assert comparison.high is not None
    assert comparison.high - comparison.mean == pytest.approx(stats.t.ppf(0.975, 59) * error, rel=0.05)


def test_bits_are_compared_in_bits() -> None:
    """A difference has the unit of the metric, unless that is a perplexity."""
    better, worse = (
        Metric(
            "t", "bits_per_byte", -sum(totals) / 6 / math.log(2), likelihood=Likelihood(totals, (4.0, 2.0), bits=True)
        )
        for totals in ((-3.0, -1.0), (-6.0, -2.5))
    )
    comparison = difference(Estimate.of([worse]), Estimate.of([better]), paired=False)
    assert comparison.mean == pytest.approx(worse.value - better.value)
    nats = [Estimate.of([perplexity(list(each.likelihood.totals), [4.0, 2.0])]) for each in (worse, better)]  # type: ignore[union-attr]
    assert difference(*nats, paired=False).high == pytest.approx((comparison.high or 0) * math.log(2))


def test_the_error_of_a_perplexity_is_one_of_the_loss() -> None:
    rng = np.random.default_rng(3)
    units = rng.integers(20, 200, 40).astype(float)
    metric = perplexity([*(-rng.normal(6, 1.5, 40) * units)], [*units])
    assert metric.likelihood
    low, high = metric.ends(1.0) or (0.0, 0.0)
    assert math.log(high / metric.value) == pytest.approx(math.log(metric.value / low))
    assert metric.likelihood.stderr == pytest.approx(math.log(high / metric.value))
    draws = Estimate.of([metric]).draws
    assert draws is not None
    assert draws.std() * math.sqrt(40 / 39) == pytest.approx(metric.likelihood.stderr, rel=0.05)
    assert high - metric.value > metric.value - low > 0


@given(st.integers(1, 12), st.integers(1, 3))
def test_all_models_are_resampled_alike(count: int, columns: int) -> None:
    values = np.arange(count * columns, dtype=np.float64).reshape(count, columns)
    sums = resampled("task", values)
    assert sums.shape == (DRAWS, columns)
    assert np.array_equal(sums[:, 0], resampled("task", values[:, :1])[:, 0])
    assert np.all(resampled("task", np.ones((count, 1))) == count)
    if count > 2:
        assert not np.array_equal(sums, resampled("other", values))


@pytest.mark.parametrize("count", [1, 2, 30])
def test_equal_models_differ_by_nothing(count: int) -> None:
    estimate = Estimate.of([scores([0.1 + 0.1 * n for n in range(count)])])
    comparison = difference(estimate, estimate, paired=True)
    assert comparison.mean == 0
    assert not comparison.tells
    assert comparison.p == (None if count == 1 else 1.0)


@pytest.mark.parametrize("count", [2, 4, 10])
def test_few_documents_prove_little_however_alike(count: int) -> None:
    worse, better = (Estimate.of([scores([value] * count)]) for value in (0.2, 0.9))
    assert difference(better, worse, paired=True).p == 2.0 ** (1 - count)


def test_a_broken_model_loses_every_comparison() -> None:
    sound, broken = (Estimate.of([perplexity([-9.0, -8.0, total], [4.0, 4.0, 4.0])]) for total in (-7.0, -math.inf))
    assert broken.draws is None
    comparison = difference(broken, sound, paired=True)
    assert (comparison.mean, comparison.low, comparison.p) == (math.inf, None, 0.0)
    assert not difference(broken, broken, paired=True).tells


def test_without_documents_the_errors_count_as_independent() -> None:
    first, second = (Estimate.of([Metric("t", "x", value, 0.03)]) for value in (0.9, 0.8))
    comparison = difference(first, second, paired=True)
    assert comparison.p == pytest.approx(2 * stats.norm.sf(0.1 / math.hypot(0.03, 0.03)))
    unknown = difference(first, Estimate.of([Metric("t", "x", 0.8)]), paired=True)
    assert unknown == Difference(mean=unknown.mean)
    assert unknown.mean == pytest.approx(0.1)


@pytest.mark.parametrize("count", [6, 40, 300])
def test_models_that_differ_by_nothing_are_seldom_told_apart(count: int) -> None:
    rng = np.random.default_rng(4)
    rejected = 0
    for _ in range(400):
        first, second = rng.normal(0, 1, (2, count))
        rejected += of_one_draw(scores([*first]), scores([*second])).tells
    assert 0.02 < rejected / 400 < 0.08


# ---- many at once


@settings(derandomize=True, max_examples=12, deadline=None, database=None)  # statsmodels takes a tenth of a second
@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_holm_is_that_of_statsmodels(values: list[float]) -> None:
    adjusted = holm({str(index): value for index, value in enumerate(values)})
    expected = multipletests(values, method="holm")[1]
    assert [adjusted[str(index)] for index in range(len(values))] == pytest.approx(list(expected))


def paired(models: dict[str, Estimate]) -> Callable[[str, str], Difference]:
    return lambda first, second: difference(models[first], models[second], paired=True)


@settings(derandomize=True, max_examples=60, deadline=None, database=None)
@given(st.lists(st.lists(st.integers(0, 1), min_size=12, max_size=12), min_size=2, max_size=5), st.booleans())
def test_the_best_is_never_beaten(models: list[list[int]], higher: bool) -> None:
    estimates = {str(index): Estimate.of([accuracy(right)]) for index, right in enumerate(models)}
    best = unbeaten(estimates, higher=higher, compare=paired(estimates))
    choose = max if higher else min
    assert choose(estimates, key=lambda label: estimates[label].mean) in best


def test_equal_models_seldom_lose_their_mark() -> None:
    rng = np.random.default_rng(5)
    marked = 0
    for _ in range(100):
        shared = rng.normal(0, 1, 30)
        models = {str(n): Estimate.of([scores([*(shared + rng.normal(0, 0.5, 30))])]) for n in range(6)}
        marked += len(unbeaten(models, higher=True, compare=paired(models))) == 6
    assert marked >= 92


def test_a_precise_rival_is_not_hidden_by_a_noisy_leader() -> None:
    rng = np.random.default_rng(6)
    base = rng.normal(0, 0.01, 40)
    models = {
        "noisy": Estimate.of([scores([*(base + 0.5 + rng.normal(0, 2.5, 40))])]),
        "good": Estimate.of([scores([*(base + 0.4)])]),
        "worse": Estimate.of([scores([*(base + rng.normal(0, 0.1, 40))])]),
    }
    assert unbeaten(models, higher=True, compare=paired(models)) == {"noisy", "good"}


# ---- averages of tasks, over the documents within each


STRATA = (Stratum(40, 0.5), Stratum(3, 0.25), Stratum(9, 0.25))


def averaged(values: list[float]) -> Metric:
    mean, error = mean_and_error(values, STRATA)
    return Metric("mean", "accuracy", mean, error, documents=tuple(values), strata=STRATA)


def by_stratum(values: np.ndarray) -> list[np.ndarray]:
    return np.split(values, [40, 43])


def within(values: np.ndarray) -> float:
    """The standard error of the weighted mean of three samples, by the textbook."""
    parts = zip(by_stratum(values), STRATA, strict=True)
    return math.sqrt(sum(s.weight**2 * own.var(ddof=1) / len(own) for own, s in parts))


def test_an_average_is_compared_over_the_documents_within_its_tasks() -> None:
    rng = np.random.default_rng(0)
    level = np.repeat([0.0, 5.0, -3.0], [40, 3, 9])  # tasks are not alike, which is no chance
    first, second = level + rng.normal(size=52), level + rng.normal(size=52)
    first_average, second_average = averaged(first.tolist()), averaged(second.tolist())
    expected = sum(s.weight * own.mean() for own, s in zip(by_stratum(first), STRATA, strict=True))
    assert first_average.value == pytest.approx(expected)
    assert first_average.stderr == pytest.approx(within(first))
    assert Estimate.of([first_average]).error == pytest.approx(within(first), rel=0.06)
    comparison = of_one_draw(first_average, second_average)
    assert comparison.mean == pytest.approx(first_average.value - second_average.value)
    half = stats.t.ppf(0.975, 52 - 3) * within(first - second)
    assert ((comparison.high or 0) - (comparison.low or 0)) / 2 == pytest.approx(half, rel=0.06)


def test_strata_in_proportion_to_their_documents_are_tested_exactly() -> None:
    rng = np.random.default_rng(1)
    first, second = (rng.integers(0, 2, size=30).astype(float).tolist() for _ in range(2))
    parts = (Stratum(10, 1 / 3), Stratum(20, 2 / 3))
    whole = [Metric("t", "acc", sum(v) / 30, documents=tuple(v)) for v in (first, second)]
    parted = [Metric("t", "acc", sum(v) / 30, documents=tuple(v), strata=parts) for v in (first, second)]
    comparisons = [of_one_draw(*pair) for pair in (whole, parted)]
    assert comparisons[0] == comparisons[1]


def test_a_stratum_of_one_document_has_no_error() -> None:
    metric = Metric("t", "acc", 0.5, documents=(1.0, 0.0, 0.5), strata=(Stratum(1, 0.5), Stratum(2, 0.5)))
    assert mean_and_error(metric.documents or (), metric.strata) == (0.625, None)
    assert Estimate.of([metric]).error is None


def test_strata_have_the_documents_of_the_metric() -> None:
    with pytest.raises(ValueError, match="acc of t: the strata have other documents"):
        Metric("t", "acc", 0.5, documents=(1.0, 0.0), strata=(Stratum(3, 1.0),))

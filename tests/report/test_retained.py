"""What is retained, against arithmetic by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from layerimp.evaluator import Likelihood, Metric, Stratum, mean_and_error
from layerimp.report.paired_bootstrap import difference
from layerimp.report.retained import counting, retained, summed_up, why_nothing
from layerimp.report.statistics import at_floor, noise, parts_at_floor

UNIGRAM = (-90.0, -60.0, -45.0)


def likelihood(
    *totals: float, units: tuple[float, ...] = (9.0, 6.0, 5.0), task: str = "prose", name: str = "ppl"
) -> Metric:
    made = Likelihood(totals, units, UNIGRAM[: len(totals)])
    return Metric(task, name, made.metric(made.loss), 0.1, False, likelihood=made)


def accuracy(value: float, floor: float | None = 0.5, task: str = "mood", name: str = "acc") -> Metric:
    documents = tuple(float(n < round(value * 100)) for n in range(100))
    return Metric(task, name, value, 0.01, floor=floor, documents=documents)


INTACT = likelihood(-40.0, -30.0, -25.0)
ACCURATE = accuracy(0.9)


def table(*metrics: Metric) -> dict[tuple[str, str], Metric]:
    return {(metric.task, metric.name): metric for metric in metrics}


def test_information_by_hand() -> None:
    # H0 = 195, H(intact) = 95, H(pruned) = 140 nats: (195 - 140) / (195 - 95).
    assert retained(INTACT, [likelihood(-60.0, -45.0, -35.0)]).mean == pytest.approx(0.55)
    assert retained(INTACT, [INTACT]).mean == 1.0
    assert retained(INTACT, [likelihood(*UNIGRAM)]).mean == 0.0
    assert retained(INTACT, [likelihood(-100.0, -80.0, -60.0)]).mean < 0


def test_chance_is_nothing() -> None:
    assert retained(ACCURATE, [accuracy(0.5)]).mean == pytest.approx(0.0)
    assert retained(ACCURATE, [accuracy(0.7)]).mean == pytest.approx(0.5)
    assert retained(ACCURATE, [accuracy(0.95)]).mean == pytest.approx(1.125)
    assert retained(accuracy(0.9, None), [accuracy(0.45, None)]).mean == pytest.approx(0.5)


@given(st.lists(st.floats(-80, -1), min_size=3, max_size=3), st.sampled_from([(9.0, 6.0, 5.0), (40.0, 31.0, 20.0)]))
def test_the_unit_changes_nothing(totals: list[float], units: tuple[float, ...]) -> None:
    first, second = (
        retained(likelihood(-40.0, -30.0, -25.0, units=u), [likelihood(*totals, units=u)])
        for u in ((9.0, 6.0, 5.0), units)
    )
    assert first.mean == pytest.approx(second.mean)
    assert np.array_equal(first.draws, second.draws)


def test_the_error_is_that_of_many_samples_of_documents() -> None:
    rng = np.random.default_rng(0)
    right = rng.random((2, 4000)) < [[0.9], [0.7]]

    def measured(row: int, chosen: np.ndarray) -> Metric:
        values = right[row, chosen].astype(float)
        return Metric("mood", "acc", values.mean(), 0.01, floor=0.5, documents=tuple(values))

    samples = [rng.integers(4000, size=150) for _ in range(500)]
    ratios = [retained(measured(0, sample), [measured(1, sample)]).mean for sample in samples[:200]]
    error = retained(measured(0, samples[0]), [measured(1, samples[0])]).error
    assert error == pytest.approx(np.std(ratios), rel=0.2)


def test_where_few_answers_change_the_interval_still_holds_the_truth() -> None:
    """Of 40 documents, the pruned model misses each that the intact model knows with a chance of 2 %: often none."""
    rng = np.random.default_rng(0)
    held = []
    for _ in range(300):
        before = rng.random(40) < 0.8
        after = before & (rng.random(40) >= 0.02)
        intact, pruned = (
            Metric("mood", "acc", right.mean(), 0.01, floor=0.0, documents=tuple(right.astype(float)))
            for right in (before, after)
        )
        share = retained(intact, [pruned])
        assert share.error is not None
        held.append(abs(share.mean - 0.98) <= stats.t.ppf(0.975, 39) * share.error)
    assert np.mean(held) > 0.95


def test_without_a_changed_answer_the_error_is_that_of_one_more_either_way() -> None:
    share = retained(ACCURATE, [ACCURATE])
    assert share.mean == 1.0
    assert share.error == pytest.approx(math.sqrt(2) / (90 - 100 * 0.5), rel=0.05)
    partly = Metric("qa", "f1", 0.5, 0.1, floor=0.0, documents=(0.25, 0.75, 0.5))
    assert retained(partly, [partly]).error == 0.0


@pytest.mark.parametrize(
    ("metric", "reason"),
    [
        (INTACT, ""),
        (ACCURATE, ""),
        (accuracy(0.51), "mood: nothing can be retained of acc, for the intact model is not 2 standard errors above"),
        (accuracy(0.4), "above what chance gives (0.5)"),
        (Metric("t", "acc", 1.0, 0.0, floor=0.5, documents=(1.0, 1.0)), "above what chance gives (0.5)"),
        (likelihood(*UNIGRAM), "how frequent each token is"),
        (likelihood(-40.0), "one document says nothing of its error"),
        (Metric("t", "acc", 1.0, floor=0.5, documents=(1.0,)), "one document says nothing of its error"),
        (likelihood(-40.0, -math.inf, -1.0), "how frequent each token is"),
        (Metric("t", "ppl", 9.0, 1.0, False, likelihood=Likelihood((-1.0,), (1.0,))), "no likelihood of a model"),
        (Metric("t", "brier", 0.2, 0.01, False), "lower is better, and the evaluator gives no likelihood"),
        (Metric("t", "acc", 0.2), ""),
        (Metric("t", "acc", 0.0), "above what chance gives (0)"),
    ],
)  # fmt: skip
def test_where_nothing_can_be_retained_the_reason_is_said(metric: Metric, reason: str) -> None:
    said = why_nothing(metric)
    assert (reason in said) if reason else not said


def test_a_task_counts_once() -> None:
    f1, exact = accuracy(0.8, 0.0, "qa", "f1"), accuracy(0.7, 0.0, "qa", "exact_match")
    words, size = likelihood(-4.0, -3.0, -2.0), likelihood(-4.0, -3.0, -2.0, units=(30.0, 20.0, 10.0), name="byte")
    last = accuracy(0.4, 0.0, "prose", "acc")
    counted = counting([exact, f1, last, words, size, ACCURATE, accuracy(0.8, name="acc_norm")])
    assert counted == {"qa": f1, "prose": words, "mood": ACCURATE}
    bleu, error = accuracy(0.3, None, "w", "bleu"), Metric("w", "ter", 3.0, 0.1, False)
    strict = [error, accuracy(0.2, 0.0, "w", "em"), bleu, accuracy(0.4, 0.0, "w", "f1")]
    assert counting(strict) == {"w": bleu}
    group = Metric("all", "acc", 0.8, 0.01, floor=0.5, members=("mood", "qa"))
    assert counting([ACCURATE, f1, group]) == {"all": group}


def test_averages_are_over_tasks_of_a_kind_and_the_lower_one_is_the_headline() -> None:
    other = accuracy(0.8, 0.25, "quiz")
    intact = counting([INTACT, ACCURATE, other])
    pruned = table(likelihood(-60.0, -45.0, -35.0), accuracy(0.4), accuracy(0.58, 0.25, "quiz"))
    summary = summed_up(intact, [pruned])
    tasks = {task: estimate.mean for task, estimate in summary.tasks.items() if estimate}
    assert tasks == pytest.approx({"prose": 0.55, "mood": -0.25, "quiz": 0.6})
    assert summary.likelihood
    assert summary.accuracy
    assert summary.worst
    assert summary.likelihood.mean == pytest.approx(0.55)
    assert summary.accuracy.mean == pytest.approx((0.0 + 0.6) / 2)
    assert summary.worst.mean == pytest.approx(0.3)
    only = summed_up(counting([INTACT]), [pruned])
    assert only.accuracy is None
    assert only.worst is only.likelihood


def test_a_lone_task_has_one_error_wherever_it_is_shown() -> None:
    """What a resample counts below 0 may not make the error of the average smaller than the one beside the task."""
    weak = likelihood(-95.0, -50.0, -44.0)
    summary = summed_up({"prose": INTACT}, [{(weak.task, weak.name): weak}])
    task = summary.tasks["prose"]
    assert task is not None
    assert summary.worst is not None
    assert task.draws is not None
    assert task.mean > 0 > task.draws.min()
    assert (summary.worst.mean, summary.worst.error) == (task.mean, task.error)


def test_what_is_not_measured_or_says_nothing_is_no_average() -> None:
    intact = counting([INTACT, ACCURATE, accuracy(0.5, task="guess")])
    summary = summed_up(intact, [table(INTACT, accuracy(0.5, task="guess"))])
    assert summary.tasks.keys() == {"prose", "guess"}
    assert summary.tasks["guess"] is None
    assert summary.accuracy is None
    assert summary.worst is None  # for it may be the accuracy, which is not known
    assert summary.likelihood
    whole = summed_up(intact, [table(INTACT, ACCURATE, accuracy(0.5, task="guess"))])
    assert whole.accuracy
    assert whole.accuracy.mean == 1.0


def test_repeats_are_kept_apart() -> None:
    tables = [table(accuracy(value)) for value in (0.5, 0.7, 0.9)]
    estimate = summed_up(counting([ACCURATE]), tables).accuracy
    assert estimate
    assert estimate.points.tolist() == pytest.approx([0.0, 0.5, 1.0])
    assert estimate.draws is not None
    assert estimate.draws.shape[1] == 3


def test_a_model_that_broke_retains_nothing() -> None:
    broken = likelihood(-math.inf, -45.0, -35.0)
    summary = summed_up(counting([INTACT]), [table(broken)])
    prose = summary.tasks["prose"]
    assert prose
    assert prose.mean == -math.inf
    assert summary.worst
    assert summary.worst.mean == 0.0


def test_cells_from_before_documents_were_kept_are_read_as_far_as_it_goes() -> None:
    old = Metric("mood", "acc", 0.7, 0.02)
    estimate = retained(Metric("mood", "acc", 0.9, 0.01), [old])
    assert estimate.mean == pytest.approx(0.7 / 0.9)
    assert estimate.error == pytest.approx(math.hypot(0.02, 0.7 / 0.9 * 0.01) / 0.9)
    assert math.isnan(retained(INTACT, [Metric("prose", "ppl", 9.0, 0.1, False)]).mean)


def test_an_average_retains_a_ratio_of_means_with_the_error_within_its_tasks() -> None:
    rng = np.random.default_rng(3)
    sizes, weights = (60, 8), (0.5, 0.5)
    strata = tuple(Stratum(n, weight) for n, weight in zip(sizes, weights, strict=True))
    intact, pruned = (np.concatenate([rng.binomial(1, p, size=n) for p, n in zip(ps, sizes, strict=True)]) * 1.0
                      for ps in ((0.9, 0.7), (0.6, 0.5)))  # fmt: skip

    def metric(values: np.ndarray) -> Metric:
        mean, error = mean_and_error(values.tolist(), strata)
        return Metric("mean", "accuracy", mean, error, floor=0.4, documents=tuple(values.tolist()), strata=strata)

    def mean(values: np.ndarray) -> float:
        return float(sum(w * own.mean() for w, own in zip(weights, np.split(values, [60]), strict=True)))

    estimate = retained(metric(intact), [metric(pruned)])
    share = (mean(pruned) - 0.4) / (mean(intact) - 0.4)
    assert estimate.mean == pytest.approx(share)
    left = pruned - share * intact  # to first order, the ratio varies as the mean of this does
    parts = zip(weights, np.split(left, [60]), strict=True)
    error = math.sqrt(sum(w**2 * own.var(ddof=1) / len(own) for w, own in parts)) / (mean(intact) - 0.4)
    assert estimate.error == pytest.approx(error, rel=0.05)


def averaged(values: np.ndarray) -> Metric:
    """An average of three parts: floor 0.25 on 40 documents, floor 0.6 on 30, and floor 0.5 on 2 x 20 as one part."""
    sizes, floors = (40, 30, 20, 20), (0.25, 0.6, 0.5, 0.5)
    names, weights = ("options", "yes or no", "pairs", "pairs"), (1 / 3, 1 / 3, 1 / 6, 1 / 6)
    strata = tuple(map(Stratum, sizes, weights, names, floors))
    mean, error = mean_and_error(values.tolist(), strata)
    return Metric("mean", "accuracy", mean, error, floor=0.45, documents=tuple(values.tolist()), strata=strata)


def answered(*right: int) -> np.ndarray:
    """So many right answers of the 40, 30, 20 and 20 documents."""
    return np.concatenate(
        [np.repeat((1.0, 0.0), (n, size - n)) for n, size in zip(right, (40, 30, 20, 20), strict=True)]
    )


def test_an_average_retains_nothing_of_a_part_that_the_intact_model_does_not_know() -> None:
    """A model that answers a question of two options otherwise by chance seems to gain or to lose by it."""
    intact = averaged(answered(30, 12, 18, 12))  # 0.4 where the most frequent answer gives 0.6
    assert parts_at_floor(intact) == ["yes or no"]
    unlike = [averaged(answered(20, n, 15, 11)) for n in (5, 12, 28)]
    estimate = retained(intact, unlike)
    gained, left = (30 / 40 - 0.25) + (30 / 40 - 0.5), (20 / 40 - 0.25) + (26 / 40 - 0.5)
    assert estimate.points.tolist() == pytest.approx([left / gained] * 3)
    assert estimate.documents == 80
    assert not why_nothing(intact)


def test_nothing_is_retained_of_an_average_if_no_part_is_known() -> None:
    intact = averaged(answered(11, 20, 11, 11))
    assert at_floor(intact)
    assert "nothing can be retained" in why_nothing(intact)


def test_an_average_passes_by_chance_as_rarely_as_a_single_task() -> None:
    assert 9 * stats.norm.sf(noise(9)) == pytest.approx(stats.norm.sf(2))
    passed = 27  # of 40: 2.2 standard errors above a half
    assert not at_floor(Metric("alone", "acc", passed / 40, floor=0.5, documents=(1.0,) * passed + (0.0,) * 14))
    assert at_floor(averaged(answered(10, 18, 14, 13)))


@pytest.mark.parametrize(("documents", "low"), [(100, 1 / 12), (300, 1 / 50)])
def test_choosing_tasks_by_what_is_measured_makes_the_share_low(documents: int, low: float) -> None:
    """So the page on statistics says, of nine tasks from 2 to 25 points above the floor, and two equal models."""
    rng, rights, parts = np.random.default_rng(0), np.linspace(0.42, 0.65, 9), [f"task {n}" for n in range(9)]
    strata, shares = tuple(Stratum(documents, 1 / 9, part, 0.4) for part in parts), []
    for _ in range(300):
        answers = rng.random((9, documents)) < rights[:, None]
        values = tuple(answers.ravel().astype(float).tolist())
        intact = Metric("mean", "acc", float(answers.mean()), floor=0.4, documents=values, strata=strata)
        known = [part not in parts_at_floor(intact) for part in parts]
        other = rng.binomial(documents, rights[known]) / documents
        shares.append((other - 0.4).sum() / (answers.mean(axis=1)[known] - 0.4).sum())
    assert 1 - np.mean(shares) == pytest.approx(low, abs=0.01)


def test_a_mean_over_tasks_has_the_degrees_of_freedom_of_the_task_with_the_fewest() -> None:
    rng = np.random.default_rng(4)

    def metrics(share: float) -> list[Metric]:
        plain, parts = (rng.binomial(1, share, size=n) * 1.0 for n in (15, 20))
        strata = (Stratum(2, 0.1),) * 10  # 20 documents, and 10 degrees of freedom
        return [
            Metric("plain", "acc", float(plain.mean()), 0.1, floor=0.0, documents=tuple(plain)),
            Metric("parts", "acc", float(parts.mean()), 0.1, floor=0.0, documents=tuple(parts), strata=strata),
        ]

    tables = [{(each.task, each.name): each for each in metrics(share)} for share in (0.6, 0.4)]
    first, second = (summed_up(counting(metrics(0.95)), [table]).accuracy for table in tables)
    assert first is not None
    assert second is not None
    assert first.draws is not None
    assert second.draws is not None
    comparison = difference(first, second, paired=True)
    error = float((first.draws - second.draws).std(ddof=1)) * math.sqrt(20 / 19)
    assert comparison.high is not None
    assert comparison.high - comparison.mean == pytest.approx(error * stats.t.ppf(0.975, 10))


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (Metric("t", "acc", 0.53, 0.02, floor=0.5), True),
        (Metric("t", "acc", 0.55, 0.02, floor=0.5), False),
        (Metric("t", "acc", 0.4, 0.02, floor=0.5), True),
        (Metric("t", "acc", 0.53, 0.02), False),  # nobody knows the floor
        (Metric("t", "ter", 0.53, 0.02, higher_is_better=False, floor=0.5), False),
        (Metric("t", "acc", 1.0, floor=0.5, documents=(1.0,) * 4), False),
        (Metric("t", "acc", 1.0, floor=0.5, documents=(1.0,) * 3), True),  # by chance in one of eight
        (likelihood(-40.0, -30.0, -25.0), False),
        (likelihood(*UNIGRAM), True),
    ],
)
def test_a_model_is_at_the_floor_within_two_standard_errors(metric: Metric, expected: bool) -> None:
    assert at_floor(metric) is expected

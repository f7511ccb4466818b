"""The two halves of documents: disjoint, stable, and each measured as if the other did not exist."""

from __future__ import annotations

import math
import random
import statistics
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerimp.errors import TaskError
from layerimp.evaluator import Likelihood, Metric, Stratum
from layerimp.pipeline.document_halves import DocumentHalves, check_halves, confirming, kept
from layerimp.report.statistics import at_floor, parts_at_floor

modest = settings(derandomize=True, max_examples=50, deadline=None, database=None)
HASHES = (4, 7, 10, 11, 12, 13)
"""Even documents search, odd documents confirm."""


def accuracy(*right: float, hashes: tuple[int, ...] | None = HASHES, floor: float = 0.25) -> Metric:
    return Metric("mood", "acc", statistics.mean(right), 0.1, floor=floor, documents=right, hashes=hashes)


def perplexity(*totals: float, hashes: tuple[int, ...] | None = HASHES) -> Metric:
    made = Likelihood(totals, (2.0, 3.0, 4.0, 5.0, 6.0, 7.0), (-9.0, -8.0, -12.0, -15.0, -17.0, -20.0))
    return Metric("prose", "ppl", made.metric(made.loss), 0.1, False, likelihood=made, hashes=hashes)


@modest
@given(st.lists(st.integers(0, 2**53 - 1), min_size=1, max_size=40), st.integers(1, 40))
def test_halves_are_disjoint_whole_and_stable(hashes: list[int], first: int) -> None:
    values = tuple(float(n) for n in range(len(hashes)))
    metric = Metric("t", "m", statistics.mean(values), documents=values, hashes=tuple(hashes))
    parts = DocumentHalves.of([metric])
    (search,), (confirmation,) = parts.search, parts.confirmation
    assert search.documents is not None
    assert confirmation.documents is not None
    assert sorted(search.documents + confirmation.documents) == list(values)
    assert not set(search.hashes or ()) & set(confirmation.hashes or ())  # equal documents stay together
    fewer = replace(metric, documents=values[:first], hashes=tuple(hashes[:first]))
    assert confirming(metric)[:first] == confirming(fewer)  # whatever the limit


def test_documents_without_hashes_are_parted_by_number_and_not_in_turn() -> None:
    whole = confirming(Metric("t", "m", 0.5, documents=(0.0, 1.0) * 50))
    assert whole == confirming(Metric("t", "m", 0.5, documents=(1.0,) * 100))
    assert 35 <= sum(whole) <= 65
    assert 15 <= sum(whole[::2]) <= 35  # labels that alternate are in both halves


def test_each_half_is_measured_by_itself() -> None:
    halves = DocumentHalves.of(
        [accuracy(1, 0, 1, 1, 0, 1), perplexity(-2, -3, -5, -5, -6, -7), Metric("c", "bleu", 20.0)]
    )
    search, confirmation = halves.search, halves.confirmation
    assert [metric.name for metric in search] == [metric.name for metric in confirmation] == ["acc", "ppl"]
    assert search[0].documents == (1, 1, 0)
    assert search[0].value == pytest.approx(2 / 3)
    assert search[0].stderr == pytest.approx(math.sqrt(1 / 3 / 3))  # variance 1/3 over 3 documents
    assert confirmation[0].documents == (0, 1, 1)
    assert search[1].value == pytest.approx(math.exp(13 / 12))
    assert confirmation[1].value == pytest.approx(math.exp(15 / 15))
    assert search[1].likelihood
    assert search[1].likelihood.unigram == (-9.0, -12.0, -17.0)
    assert search[1].likelihood.stderr
    assert search[1].stderr == pytest.approx(math.exp(13 / 12) * search[1].likelihood.stderr)


def test_what_is_kept_is_the_lower_mean_of_a_half() -> None:
    intact = DocumentHalves.of([accuracy(1, 1, 1, 1, 1, 1), perplexity(-2, -3, -4, -5, -6, -7)])
    pruned = DocumentHalves.of([accuracy(1, 1, 1, 1, 0, 1), perplexity(-3, -3, -6, -5, -7, -7)])
    # Of the search half (2/3 - 1/4) / (1 - 1/4) is right; (38 - 16) / (38 - 12) of the information is left.
    searched, confirmed = kept(intact.search, pruned.search), kept(intact.confirmation, pruned.confirmation)
    assert searched
    assert confirmed
    assert searched.mean == pytest.approx(5 / 9)
    assert confirmed.mean == 1.0
    assert kept(intact.search, pruned.search[1:]) is None  # a task was not measured


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ([accuracy(1, 0, 0, 1, 0, 0, floor=0.3)], "mood: nothing can be retained of acc, .* chance gives"),
        ([accuracy(1, 1, 1, 1, 1, 0, hashes=(2, 4, 6, 8, 10, 1))], "mood: the half that confirms has 1 of 6 documents"),
        ([accuracy(1, 0, 1, 0, 1, 1, floor=0.2)], "mood: .* on the 3 documents of the half that confirms"),
        ([Metric("corpus", "bleu", 20.0, 0.1)], "corpus: bleu is not known document by document"),
        ([perplexity(-9, -8, -12, -15, -17, -20)], "prose: nothing can be retained of ppl"),
    ],
)
def test_what_cannot_be_kept_or_confirmed_is_refused_by_the_name_of_the_task(metrics: list[Metric], said: str) -> None:
    with pytest.raises(TaskError, match=said):
        check_halves(metrics)


def test_what_can_be_is_taken() -> None:
    check_halves([accuracy(1, 1, 1, 1, 1, 1), perplexity(-2, -3, -4, -5, -6, -7)])


def test_the_documents_of_an_average_are_halved_within_each_task() -> None:
    rng = random.Random(0)
    sizes = {"a": 4, "b": 5, "c": 10}
    tasks = {
        task: Metric(task, "acc", 0.5, documents=tuple(map(float, range(n))), hashes=tuple(rng.sample(range(999), n)))
        for task, n in sizes.items()
    }
    average = Metric(
        "mean",
        "accuracy",
        0.5,
        documents=tuple(value for task in tasks.values() for value in task.documents or ()),
        hashes=tuple(each for task in tasks.values() for each in task.hashes or ()),
        strata=tuple(Stratum(n, 1 / 3) for n in sizes.values()),
        members=tuple(sizes),
    )
    halves = DocumentHalves.of([average, *tasks.values()])
    for half in (halves.search, halves.confirmation):
        mean, *own = half
        assert [stratum.documents for stratum in mean.strata] == [len(task.documents or ()) for task in own]
        assert mean.documents == tuple(value for task in own for value in task.documents or ())
        assert mean.value == pytest.approx(sum(task.value for task in own) / 3)
        assert mean.stderr == pytest.approx(math.hypot(*(task.stderr or 0 for task in own)) / 3)
    assert [s.documents for s in halves.search[0].strata] == [2, 3, 5]
    assert [s.documents for s in halves.confirmation[0].strata] == [2, 2, 5]


def test_a_task_of_an_average_needs_two_documents_in_each_half() -> None:
    right = (1.0, 1.0, 0.0) + (1.0,) * 40 + (0.0,)
    strata = (Stratum(3, 0.5), Stratum(41, 0.5))
    average = Metric("mean", "accuracy", 0.8, 0.01, floor=0.25, documents=right, strata=strata)
    with pytest.raises(
        TaskError, match="of one of its tasks, the half that confirms has less than 2 documents; take 4"
    ):
        check_halves([average])


def test_both_halves_count_what_the_model_knows_by_all_documents() -> None:
    """What one half knows by chance would otherwise count there alone."""
    known, lucky = (1.0, 1.0, 0.0) * 40, (1.0,) * 39 + (0.0,) * 21 + (1.0,) * 21 + (0.0,) * 39  # 65 % and 35 % of 60
    hashes = (*range(120), *range(0, 120, 2), *range(1, 120, 2))
    strata = (Stratum(120, 0.5, "known", 0.25), Stratum(120, 0.5, "lucky", 0.5))
    metric = Metric("mean", "acc", 0.58, floor=0.375, documents=known + lucky, hashes=hashes, strata=strata)
    halves = DocumentHalves.of([metric])
    assert not at_floor(halves.search[0].parts[1])
    assert [parts_at_floor(half) for (half,) in (halves.search, halves.confirmation)] == [["lucky"]] * 2

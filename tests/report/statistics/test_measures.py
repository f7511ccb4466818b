"""Flips of single models, of averages over tasks, and of several repeats."""

from __future__ import annotations

import statistics
from dataclasses import replace

import pytest

from layerimp.metric import Metric, Stratum
from layerimp.pipeline.halves import Halves
from layerimp.report.statistics.measures import flips, flips_by_task

RIGHT = (1.0, 1.0, 0.0, 0.0, 0.0, 1.0)
INTACT = Metric("t", "acc", 0.5, documents=RIGHT, answers=(0, 1, 2, 3, 0, 1), hashes=(11, 12, 13, 14, 15, 16))
MODEL = replace(INTACT, value=1 / 3, documents=(1.0, 0.0, 1.0, 0.0, 0.0, 0.0), answers=(0, 2, 1, 3, 1, 3))


def test_a_flip_is_another_answer_right_or_wrong() -> None:
    found = flips(INTACT, [MODEL])
    assert found is not None
    assert (found.share, found.to_wrong, found.to_right) == (4 / 6, 2, 1)
    same = flips(INTACT, [INTACT])
    assert same is not None
    assert (same.share, same.stderr, same.to_wrong, same.to_right) == (0.0, 0.0, 0, 0)


def test_an_average_of_tasks_weights_the_shares_of_the_tasks() -> None:
    strata = (Stratum(2, 0.5), Stratum(4, 0.5))
    found = flips(replace(INTACT, strata=strata), [replace(MODEL, strata=strata)])
    assert found is not None
    assert found.share == pytest.approx((1 / 2 + 3 / 4) / 2)


def test_only_the_same_documents_that_are_right_or_wrong_have_flips() -> None:
    assert flips(INTACT, [replace(MODEL, hashes=(11, 12, 13, 14, 15, 17))]) is None
    assert flips(INTACT, [replace(MODEL, documents=(1.0, 0.5, 1.0, 0.0, 0.0, 0.0))]) is None
    assert flips(INTACT, [replace(MODEL, documents=None)]) is None


def test_where_lower_is_better_a_lower_value_is_right() -> None:
    intact, model = (
        replace(one, documents=tuple(1 - right for right in one.documents or ()), higher_is_better=False)
        for one in (INTACT, MODEL)
    )
    wrong = flips(intact, [model])
    assert wrong is not None
    assert (wrong.share, wrong.to_wrong, wrong.to_right) == (4 / 6, 2, 1)


def test_repeats_are_averaged_document_by_document() -> None:
    """The repeats share the documents: the error is that of each document's mean."""
    other = replace(MODEL, documents=RIGHT, answers=(0, 1, 1, 3, 0, 1))
    found = flips(INTACT, [MODEL, other])
    assert found is not None
    means = [0, 0.5, 1, 0, 0.5, 0.5]
    assert found.share == pytest.approx(statistics.mean(means))
    assert found.stderr == pytest.approx(statistics.stdev(means) / 6**0.5)
    assert (found.to_wrong, found.to_right) == (1, 0.5)
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
    intact = {(one.task, one.name): one for one in (INTACT, em, loss)}
    tasks = flips_by_task(intact, [{("t", "acc"): MODEL, ("t", "em"): em, ("t", "loss"): loss}, {("t", "acc"): MODEL}])
    assert tasks == {"t": {"acc": flips(INTACT, [MODEL])}}


def test_the_halves_of_a_search_keep_their_answers() -> None:
    before, after = Halves.of([INTACT]), Halves.of([MODEL])
    parts = [
        flips(ours, [theirs])
        for half in ("search", "confirmation")
        for ours, theirs in zip(getattr(before, half), getattr(after, half), strict=True)
    ]
    assert sum(part.to_wrong for part in parts if part) == 2
    assert sum(3 * (part.share or 0) for part in parts if part) == pytest.approx(4)

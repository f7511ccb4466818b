"""Held-out text as a measure of quality, against a naive computation."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch
from support.tiny import classifier, tiny

from layerimp.calibration.sampling import CalibrationSet
from layerimp.evaluator import unigram
from layerimp.models.discovery import find_blocks
from layerimp.pipeline.document_halves import confirming
from layerimp.pipeline.held_out import HeldOut
from layerimp.surgery.removal import prepare


def text(rows: int, *, labels: bool = False) -> CalibrationSet:
    rng = random.Random(3)
    made = tuple(tuple(rng.choices(range(5, 60), k=rng.randint(4, 9))) for _ in range(rows))
    return CalibrationSet(made, 4, "made up", tuple(n % 2 for n in range(rows)) if labels else ())


def naive(model: Any, row: tuple[int, ...]) -> float:
    logits = model(input_ids=torch.tensor([row])).logits[0].double().log_softmax(-1)
    return float(sum(logits[place, token] for place, token in enumerate(row[1:])))


@torch.no_grad()
def test_a_model_is_measured_intact_pruned_in_place_and_beside() -> None:
    model, rows = tiny(), text(8)
    stack = find_blocks(model)
    measure = HeldOut(stack, rows)
    (intact,) = measure.evaluate(model, None)
    assert intact.likelihood
    assert intact.likelihood.totals == pytest.approx([naive(model, row) for row in rows.rows], rel=1e-5)
    assert intact.likelihood.units == tuple(len(row) - 1 for row in rows.rows)
    assert intact.likelihood.unigram == unigram([row[1:] for row in rows.rows], model.config.vocab_size)
    assert intact.value == pytest.approx(math.exp(-sum(intact.likelihood.totals) / sum(intact.likelihood.units)))
    removal = prepare(stack, [1, 2])
    beside = removal.beside()
    (apart,) = measure.evaluate(beside, None)
    with removal.applied():
        (pruned,) = measure.evaluate(model, None)
        assert pruned.likelihood
        assert pruned.likelihood.totals == pytest.approx([naive(model, row) for row in rows.rows], rel=1e-5)
    assert pruned == apart != intact
    assert measure.evaluate(model, None) == [intact]


def test_halves_are_of_one_size_and_equal_rows_are_in_the_same() -> None:
    rows = text(8)
    (metric,) = HeldOut(find_blocks(tiny()), rows).evaluate(tiny(), None)
    assert sum(confirming(metric)) == 4
    twice = CalibrationSet(rows.rows[:4] * 2, 4, "twice")
    (metric,) = HeldOut(find_blocks(tiny()), twice).evaluate(tiny(), None)
    assert confirming(metric)[:4] == confirming(metric)[4:]


@pytest.mark.parametrize("labels", [True, False])
def test_a_classifier_is_measured_by_its_labels(labels: bool) -> None:
    model, rows = classifier("bert"), text(8, labels=labels)
    (metric,) = HeldOut(find_blocks(model), rows).evaluate(model, None)
    assert metric.name == "label_perplexity"
    assert metric.likelihood
    assert metric.likelihood.units == (1.0,) * 8
    with torch.no_grad():
        logits = [model(input_ids=torch.tensor([row])).logits[0].double() for row in rows.rows]
    wanted = rows.labels or [int(each.argmax()) for each in logits]
    expected = [float(each.log_softmax(-1)[label]) for each, label in zip(logits, wanted, strict=True)]
    assert metric.likelihood.totals == pytest.approx(expected, rel=1e-4)

"""How far a model is from the intact one, and whether that is better or worse than at a start."""

from __future__ import annotations

import pytest
import torch
from support.tiny import tiny

from layerimp.fidelity import Distance, Loss
from layerimp.healing.judging import Judge
from layerimp.models.discovery import find_blocks
from layerimp.surgery.removal import prepare
from layerimp.testing import batch, tiny_classifier


def rows(*values: float) -> Loss:
    """A loss with one prediction in each row."""
    return Loss(list(values), [1] * len(values))


def test_both_divergences_are_those_of_whole_logits() -> None:
    """Of plain rows, and of rows whose second half repeats the first: 20 tokens, of which each half has 10."""
    model = tiny("llama")
    intact = find_blocks(model)
    pruned = find_blocks(prepare(intact, [1]).beside())
    ids = torch.arange(3, 63).view(3, 20)  # none of them is special
    text = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    distance = Judge(intact, [text]).of(pruned)
    again = text["input_ids"][:, [*range(10), *range(10)]]
    assert distance.repeated is not None
    for ids, loss, places in (
        (text["input_ids"], distance.plain, slice(0, 19)),
        (again, distance.repeated, slice(9, 19)),
    ):
        with torch.no_grad():
            theirs, ours = (each(input_ids=ids).logits.double().log_softmax(-1) for each in (model, pruned.model))
        expected = (theirs.exp() * (theirs - ours)).sum(-1)[:, places]
        assert loss.totals == pytest.approx(expected.sum(1).tolist(), rel=1e-4)
        assert loss.counts == [expected.shape[1]] * 3


def test_a_classifier_copies_nothing() -> None:
    intact = find_blocks(tiny_classifier())
    assert Judge(intact, [batch(3, 20)]).of(intact) == Distance(Loss([0.0] * 3, [1] * 3))


def test_worse_in_one_of_them_is_not_better() -> None:
    """Gains of the rows: 1 on average with a standard error of 0.5 on plain rows, and so on."""
    start = Distance(rows(4, 4), rows(2, 2))
    better = Distance(rows(2.5, 3.5), rows(1, 1))
    assert better.relative_to(start) == pytest.approx((0.75 + 0.5) / 2)
    assert better.is_better_than(start)
    assert not better.is_worse_than(start)
    forgets = Distance(rows(0.5, 0.5), rows(2.1, 2.1))
    assert forgets.relative_to(start) < better.relative_to(start)
    assert forgets.is_worse_than(start)
    assert not forgets.is_better_than(start)
    noise = Distance(rows(1, 6.9), rows(2, 2))
    assert noise.relative_to(start) < 1
    assert not noise.is_better_than(start)
    assert not noise.is_worse_than(start)
    assert better.words(start) == "the divergence went from 4 to 3 nats, on repeated rows from 2 to 1"
    assert start.numbers("before") == {"divergence_before": 4.0, "repeated_before": 2.0}


def test_a_model_that_was_never_pruned_has_nothing_to_gain() -> None:
    same = Distance(rows(0, 0))
    assert same.relative_to(same) == 1
    assert not same.is_better_than(same)
    assert Distance(rows(1, 1)).is_worse_than(same)

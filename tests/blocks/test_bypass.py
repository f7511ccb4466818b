"""The intact model with sublayers bypassed computes the same as the model without them."""

from __future__ import annotations

import pytest
import removal
import zoo
from support.by_hand import ARCHITECTURES, predicted
from support.stirred import SETS, close, left, logits, stirred

import layerimp
from layerimp.blocks.bypass import bypassed
from layerimp.steps import Step
from layerimp.testing import batch


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("steps", SETS, ids=str)
def test_it_computes_what_is_left(name: str, steps: list[Step]) -> None:
    model, ids = stirred(name), batch(2, 20)["input_ids"]
    with bypassed(layerimp.find_blocks(model), steps):
        close(logits(model, ids), predicted(model, ids, left(steps)))
    close(logits(model, ids), predicted(model, ids, left([])))


def test_with_two_additions_before_the_mlp_both_are_left_out() -> None:
    """A decoder attends to its own text and to another's."""
    case = removal.try_removal(lambda: zoo.build("t5", "classifier"), "classifier", ["2/3"])
    assert (case.outcome, case.said) == ("exact", "")

"""The intact model with blocks bypassed computes the same as the model without them."""

from __future__ import annotations

import pytest
from support.by_hand import ARCHITECTURES, predicted
from support.stirred import SETS, close, left, logits, stirred

import layerimp
from layerimp.blocks.bypass import bypassed
from layerimp.testing import batch


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("blocks", SETS, ids=str)
def test_it_computes_what_is_left(name: str, blocks: list[int]) -> None:
    model, ids = stirred(name), batch(2, 20)["input_ids"]
    with bypassed(layerimp.find_blocks(model), blocks):
        close(logits(model, ids), predicted(model, ids, left(blocks)))
    close(logits(model, ids), predicted(model, ids, left([])))

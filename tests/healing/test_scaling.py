"""The scale of the stream is moved into the modules that write into it later, or that is refused."""

from __future__ import annotations

import pytest
import torch
from support.healing_cases import case_of
from support.tiny import ALL, POST_NORM, each_of, tiny

from layerimp.blocks.equivalence import first_difference, last_hidden
from layerimp.errors import ModelError
from layerimp.healing import scale_stream, stream_scaled
from layerimp.models.discovery import find_blocks
from layerimp.surgery.removal import prepare

FREE_NORMS = frozenset({"olmo2"})
"""A model with norms only after sublayers, so that attention reads the stream directly."""


@pytest.mark.parametrize("name", each_of(ALL))
def test_scaling_later_writers_is_scaling_the_stream(name: str) -> None:
    case = case_of(tiny(name), [1])
    (gap,) = case.gaps
    if name in POST_NORM | FREE_NORMS:
        with pytest.raises(ModelError, match="its norms do not cancel a factor of the whole stream"):
            scale_stream(case.pruned, gap, 1.7)
        assert first_difference(case.pruned.model, find_blocks(prepare(case.intact, [1]).beside()).model) is None
        return
    with stream_scaled(case.pruned, gap, 1.7):
        expected = last_hidden(case.pruned)
    before = last_hidden(case.pruned)
    scale_stream(case.pruned, gap, 1.7)
    after = last_hidden(case.pruned)
    assert (after - expected).abs().max() < 5e-3 * expected.abs().max()  # up to the eps of the norms
    assert (before - expected).abs().max() > 1e-2 * expected.abs().max()


def test_what_cannot_be_scaled_is_refused() -> None:
    model = tiny("llama")
    end = case_of(model, [3])
    with pytest.raises(ModelError, match="nothing but the final norm comes after"):
        scale_stream(end.pruned, end.gaps[0], 2.0)
    for block in find_blocks(model)[2:]:
        block.mlp.down_proj.weight = find_blocks(model)[2].mlp.down_proj.weight
    shared = case_of(model, [1])
    with pytest.raises(ModelError, match=r"shares .*down_proj"):
        scale_stream(shared.pruned, shared.gaps[0], 2.0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_no_reason_against_scaling(dtype: torch.dtype) -> None:
    case = case_of(tiny("llama", dtype=dtype), [1])
    scale_stream(case.pruned, case.gaps[0], 1.5)

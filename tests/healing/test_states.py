"""The states at a gap are those of the two models."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.healing_cases import case_of
from support.tiny import tiny

from layerimp.healing import states
from layerimp.steps import Step


def first_read(model: Any, module: torch.nn.Module, text: Any) -> torch.Tensor:
    """The input of a module in a run of its model."""
    read: list[torch.Tensor] = []
    with module.register_forward_pre_hook(lambda _module, args: read.append(args[0])), torch.no_grad():
        model(**text)
    return read[0]


@pytest.mark.parametrize(
    ("removed", "blocks"), [([1, 2, 4], ((3, 1), (5, 2))), (["1/2", "4/5"], ((2, 1), (5, 3)))], ids=["blocks", "seams"]
)
def test_states_are_those_of_the_two_models(removed: list[Step], blocks: tuple[tuple[int, int], ...]) -> None:
    """Against what the first norm of a block reads, or inside a block, where a seam was, what its second norm reads."""
    model = tiny("llama", num_hidden_layers=6)
    case = case_of(model, removed)
    for gap, (intact, pruned) in zip(case.gaps, blocks, strict=True):
        norm = "post_attention_layernorm" if gap.position.part == "mlp" else "input_layernorm"
        for text, state in zip(case.batches, states(case, gap, case.batches), strict=True):
            real = text["attention_mask"].bool()
            for stream, whose, deep in ((state.target, model, intact), (state.stream, case.pruned.model, pruned)):
                read = first_read(whose, whose.model.layers[deep].get_submodule(norm), text)
                assert torch.allclose(stream, read[real], atol=1e-5)

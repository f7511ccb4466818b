"""The states at a gap are those of the two models."""

from __future__ import annotations

from typing import Any

import torch
from support.healing_cases import case_of
from support.tiny import tiny

from layerimp.healing import states


def first_read(model: Any, module: torch.nn.Module, text: Any) -> torch.Tensor:
    """The input of a module in a run of its model."""
    read: list[torch.Tensor] = []
    with module.register_forward_pre_hook(lambda _module, args: read.append(args[0])), torch.no_grad():
        model(**text)
    return read[0]


def test_states_inside_blocks_are_those_of_the_two_models() -> None:
    """Against the input of the second norm of a block, which is the stream between attention and MLP."""
    model = tiny("llama", num_hidden_layers=6)
    case = case_of(model, ["1/2", "4/5"])
    for gap, intact, pruned in zip(case.gaps, (2, 5), (1, 3), strict=True):
        for text, state in zip(case.batches, states(case, gap, case.batches), strict=True):
            real = text["attention_mask"].bool()
            for stream, whose, deep in ((state.target, model, intact), (state.stream, case.pruned.model, pruned)):
                read = first_read(whose, whose.model.layers[deep].post_attention_layernorm, text)
                assert torch.allclose(stream, read[real], atol=1e-5)


def test_states_are_those_of_the_two_models() -> None:
    """Against the hidden states that Transformers itself returns, which have no final norm before the last block."""
    model = tiny("llama", num_hidden_layers=6)
    case = case_of(model, [1, 2, 4])
    for gap, intact, pruned in zip(case.gaps, (3, 5), (1, 2), strict=True):
        for text, state in zip(case.batches, states(case, gap, case.batches), strict=True):
            real = text["attention_mask"].bool()
            for stream, whose, deep in ((state.target, model, intact), (state.stream, case.pruned.model, pruned)):
                with torch.no_grad():
                    hidden = whose(**text, output_hidden_states=True).hidden_states[deep]
                assert torch.allclose(stream, hidden[real], atol=1e-5)

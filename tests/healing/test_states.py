"""The states at a gap are those of the two models."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.healing_cases import case_of
from support.tiny import classifier, tiny

from layerimp.blocks.forward import hidden_states
from layerimp.healing import states
from layerimp.models.discovery import find_blocks
from layerimp.testing import padded_batch


def first_read(model: Any, module: torch.nn.Module, text: Any) -> torch.Tensor:
    """The input of a module in a run of its model."""
    read: list[torch.Tensor] = []
    with module.register_forward_pre_hook(lambda _module, args: read.append(args[0])), torch.no_grad():
        model(**text)
    return read[0]


def output_of(block: torch.nn.Module, model: Any, text: Any) -> torch.Tensor:
    """What a block puts out in a run of its model."""
    outputs: list[torch.Tensor] = []
    note = block.register_forward_hook(lambda _module, _args, output: outputs.append(hidden_states(output)))
    with note, torch.no_grad():
        model(**text)
    return outputs[0]


def test_states_are_those_of_the_two_models() -> None:
    """Against what the first norm of the block after the gap reads."""
    model = tiny("llama", num_hidden_layers=6)
    case = case_of(model, [1, 2, 4])
    for gap, (intact, pruned) in zip(case.gaps, ((3, 1), (5, 2)), strict=True):
        for text, state in zip(case.batches, states(case, gap, case.batches), strict=True):
            real = text["attention_mask"].bool()
            for stream, whose, deep in ((state.target, model, intact), (state.stream, case.pruned.model, pruned)):
                read = first_read(whose, whose.model.layers[deep].get_submodule("input_layernorm"), text)
                assert torch.allclose(stream, read[real], atol=1e-5)


@pytest.mark.parametrize(("name", "read"), [("bert", (0, 0, 0)), ("llama", (11, 4, 8))])
def test_at_the_end_the_tokens_count_that_a_classifier_reads(name: str, read: tuple[int, ...]) -> None:
    """The first of a row, or the last, by the architecture."""
    model = classifier(name)
    last = len(find_blocks(model)) - 1
    text = padded_batch((12, 5, 9))
    case = case_of(model, [last], [text])
    (gap,) = case.gaps
    with torch.no_grad():
        (state,) = states(case, gap, [text])
    for stream, stack, block in ((state.target, case.intact, last), (state.stream, case.pruned, last - 1)):
        out = output_of(stack[block], stack.model, text)
        assert torch.allclose(stream, out[range(3), read], atol=1e-5)


def test_all_tokens_count_where_a_block_follows() -> None:
    text = padded_batch((12, 5, 9))
    case = case_of(classifier("llama", num_hidden_layers=3), [0], [text])
    assert [len(state.target) for state in states(case, case.gaps[0], [text])] == [12 + 5 + 9]


def test_a_language_model_reads_all_tokens_at_the_end() -> None:
    text = padded_batch((12, 5, 9))
    case = case_of(tiny("llama", num_hidden_layers=3), [2], [text])
    assert [len(state.target) for state in states(case, case.gaps[0], [text])] == [12 + 5 + 9]

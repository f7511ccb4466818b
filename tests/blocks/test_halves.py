"""The halves of a block, and the hidden states between them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import zoo
from support.stirred import SERIAL, stirred
from support.tiny import PARALLEL, each_of, tiny
from torch import nn

import layerimp
from layerimp.blocks.equivalence import last_hidden
from layerimp.blocks.forward import hidden_states
from layerimp.blocks.halves import find_halves
from layerimp.blocks.middle import Halves, Whole, changing_middle, watching_middle


@pytest.mark.parametrize(
    ("name", "mlp", "reader", "giver"),
    [
        ("llama", {"post_attention_layernorm", "mlp"}, "post_attention_layernorm", None),
        ("olmo2", {"mlp", "post_feedforward_layernorm"}, "mlp", None),
        ("opt", {"final_layer_norm", "fc1", "activation_fn", "fc2"}, "final_layer_norm", None),
        ("bert", {"intermediate", "output"}, "intermediate", "attention"),
        ("distilbert", {"ffn", "output_layer_norm"}, "ffn", "sa_layer_norm"),
        ("bloom", {"post_attention_layernorm", "mlp"}, "post_attention_layernorm", "self_attention"),
    ],
)
def test_they_are_found(name: str, mlp: set[str], reader: str, giver: str | None) -> None:
    for halves in find_halves(layerimp.find_blocks(stirred(name))):
        assert isinstance(halves, Halves)
        assert (halves.mlp, halves.reader, halves.giver) == (mlp, reader, giver)


def test_a_module_that_holds_parts_of_both_is_gone_into() -> None:
    stack = layerimp.find_blocks(zoo.build("dbrx", "causal"))
    (halves,) = set(find_halves(stack))
    assert isinstance(halves, Halves)
    assert halves.mlp == {"ffn", "norm_attn_norm.norm_2"}


def test_a_number_beside_the_modules_is_of_the_half_that_it_changes() -> None:
    halves = find_halves(layerimp.find_blocks(tiny("gemma4_text")))[0]
    assert isinstance(halves, Halves)
    assert "layer_scalar" in halves.mlp


def test_what_comes_after_the_mlp_belongs_to_it() -> None:
    """Gemma 4 adds an embedding of each token after the MLP."""
    halves = find_halves(layerimp.find_blocks(zoo.build("gemma4_text", "causal")))[0]
    assert isinstance(halves, Halves)
    assert {"mlp", "per_layer_projection"} <= halves.mlp


@pytest.mark.parametrize("kind", ["ibert", "mobilebert"])
def test_a_norm_at_the_end_is_no_mlp(kind: str) -> None:
    """Only one addition is visible in these blocks, and a norm reads it: that of the attention, or the last one."""
    assert {type(halves) for halves in find_halves(layerimp.find_blocks(zoo.build(kind, "classifier")))} == {Whole}


@pytest.mark.parametrize("name", each_of(SERIAL))
def test_half_precision_finds_the_same(name: str) -> None:
    wide, narrow = (find_halves(layerimp.find_blocks(tiny(name, dtype=d))) for d in (torch.float32, torch.bfloat16))
    for of_wide, of_narrow in zip(wide, narrow, strict=True):
        assert isinstance(of_wide, Halves)
        assert isinstance(of_narrow, Halves)
        assert (of_wide.mlp, of_wide.reader, of_wide.giver) == (of_narrow.mlp, of_narrow.reader, of_narrow.giver)
        assert [tap.path for tap in of_wide.branches] == [tap.path for tap in of_narrow.branches]


@pytest.mark.parametrize("name", each_of(SERIAL))
def test_the_middle_can_be_read_and_replaced(name: str) -> None:
    model = stirred(name)
    stack = layerimp.find_blocks(model)
    halves = find_halves(stack)[2]
    assert isinstance(halves, Halves)
    seen: list[torch.Tensor] = []
    before = last_hidden(stack)
    with watching_middle(stack[2], halves, seen.append):
        assert torch.equal(last_hidden(stack), before)
        with changing_middle(stack[2], halves, lambda start, middle: 2 * middle - start):
            assert not torch.equal(last_hidden(stack), before)
    assert [middle.shape for middle in seen] == [(1, 12, 32)] * 2
    assert torch.equal(last_hidden(stack), before)
    assert not any("forward" in vars(block) for block in stack)


@pytest.mark.parametrize("name", each_of(SERIAL))
def test_a_module_that_is_called_alone_computes_what_it_always_does(name: str) -> None:
    """The attention's last module, between runs of the block whose middle is changed."""
    stack = layerimp.find_blocks(stirred(name))
    halves = find_halves(stack)[2]
    assert isinstance(halves, Halves)
    path = halves.branches[-1].path if halves.giver is None else halves.giver
    module, given = stack[2].get_submodule(path), []

    def noted(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], _output: Any) -> None:
        given[:] = [(args, kwargs)]

    with torch.no_grad():
        hook = module.register_forward_hook(noted, with_kwargs=True)
        last_hidden(stack)
        hook.remove()
        ((args, kwargs),) = given
        usual = hidden_states(module(*args, **kwargs))
        with changing_middle(stack[2], halves, lambda start, middle: 2 * middle - start):
            assert torch.equal(hidden_states(module(*args, **kwargs)), usual)
            last_hidden(stack)
            assert torch.equal(hidden_states(module(*args, **kwargs)), usual)


@pytest.mark.parametrize("name", each_of(sorted(PARALLEL)))
def test_parallel_branches_have_none(name: str) -> None:
    assert set(find_halves(layerimp.find_blocks(tiny(name)))) == {Whole("the two are parallel branches")}


def test_a_norm_in_both_halves_is_told() -> None:
    model = tiny("llama")
    for block in model.model.layers:
        block.post_attention_layernorm = block.input_layernorm
    (whole,) = set(find_halves(layerimp.find_blocks(model)))
    assert whole == Whole("input_layernorm is used in both")

"""Removal is exact and reversible, or refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tiny import ALL, DECODERS, EAGER_ONLY, tiny

import layerimp
from layerimp.blocks import bypassed
from layerimp.errors import OptionError, SurgeryError
from layerimp.pruner import PrunePlan
from layerimp.surgery import pruned
from layerimp.testing import BLOCKS, batch

KINDS = [(name, "eager") for name in ALL] + [(name, "sdpa") for name in ALL if name not in EAGER_ONLY]
SETS = [[0], [2], [3], [0, 3], [1, 2, 3]]


def logits(model: Any, **kwargs: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(**batch(2, 40), **kwargs).logits


def layer_indices(model: Any) -> list[int]:
    return [m.layer_idx for m in model.modules() if isinstance(getattr(m, "layer_idx", None), int)]


@pytest.mark.parametrize(("name", "attention"), KINDS)
def test_removed_equals_bypassed(name: str, attention: str) -> None:
    for blocks in SETS:
        model = tiny(name, attention=attention)
        with bypassed(layerimp.find_blocks(model), blocks):
            expected = logits(model, use_cache=False)
        assert layerimp.prune(model, blocks) is model
        assert len(layerimp.find_blocks(model)) == BLOCKS - len(blocks) == model.config.num_hidden_layers
        torch.testing.assert_close(logits(model, use_cache=False), expected, rtol=0, atol=0)
        assert set(layer_indices(model)) <= set(range(BLOCKS - len(blocks)))


@pytest.mark.parametrize("name", DECODERS)
def test_what_is_removed_comes_back(name: str) -> None:
    model = tiny(name)
    blocks, config = list(layerimp.find_blocks(model)), copy.deepcopy(model.config)
    indices, before = layer_indices(model), logits(model, use_cache=False)
    with pruned(model, [1, 3]):
        assert len(layerimp.find_blocks(model)) == 2
    assert all(a is b for a, b in zip(layerimp.find_blocks(model), blocks, strict=True))
    assert model.config.to_dict() == config.to_dict()
    assert layer_indices(model) == indices
    assert torch.equal(logits(model, use_cache=False), before)


def test_per_layer_lists_follow() -> None:
    kinds = ["sliding_attention", "full_attention", "full_attention", "sliding_attention"]
    model = tiny("gemma3_text", layer_types=kinds, eos_token_id=[3, 4, 5, 6])
    layerimp.prune(model, [1])
    assert model.config.layer_types == [kinds[0], kinds[2], kinds[3]]
    assert model.config.eos_token_id == [3, 4, 5, 6]


def test_depth_thresholds_and_index_lists_follow() -> None:
    model = tiny("qwen2", use_sliding_window=True, max_window_layers=2, sliding_window=8)
    layerimp.prune(model, [0])
    assert model.config.max_window_layers == 1
    model = tiny("qwen3_moe", mlp_only_layers=[1, 3])
    layerimp.prune(model, [0, 1])
    assert model.config.mlp_only_layers == [1]


def test_a_period_becomes_a_list_of_indices() -> None:
    """Every second block has experts; of blocks 0, 2 and 3 only the last one has."""
    model = tiny("qwen3_moe", decoder_sparse_step=2)
    layerimp.prune(model, [1])
    assert [type(block.mlp).__name__ for block in layerimp.find_blocks(model)] == [
        "Qwen3MoeMLP",
        "Qwen3MoeMLP",
        "Qwen3MoeSparseMoeBlock",
    ]
    fresh = type(model)(type(model.config).from_dict(model.config.to_dict()))
    assert {n: p.shape for n, p in fresh.named_parameters()} == {n: p.shape for n, p in model.named_parameters()}


def test_a_plan_is_applied() -> None:
    model = tiny("llama")
    layerimp.prune(model, PrunePlan(num_blocks=BLOCKS, blocks=[3, 1]))
    assert len(layerimp.find_blocks(model)) == 2


def test_nothing_removed_changes_nothing() -> None:
    model = tiny("llama")
    before = logits(model)
    assert torch.equal(logits(layerimp.prune(model, [])), before)


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "attn.scaling would change"),
        ("modernbert", {}, "attn_norm.class would change from LayerNorm to Identity"),
    ],
)
def test_what_depends_on_the_position_is_refused(name: str, changes: dict[str, Any], said: str) -> None:
    model = tiny(name, **changes)
    before, config = logits(model), copy.deepcopy(model.config)
    with pytest.raises(SurgeryError, match=said):
        layerimp.prune(model, [0] if name == "modernbert" else [1])
    assert len(layerimp.find_blocks(model)) == BLOCKS
    assert model.config.to_dict() == config.to_dict()
    assert torch.equal(logits(model), before)


def test_a_block_that_reads_its_position_while_running_is_refused() -> None:
    model = tiny("llama")
    for block in model.model.layers:
        block.mlp.register_forward_hook(lambda _m, _a, out, block=block: out * (1 + block.self_attn.layer_idx))
    with pytest.raises(SurgeryError, match="computes differently without block 0"):
        layerimp.prune(model, [0])
    assert layer_indices(model) == list(range(BLOCKS))


@pytest.mark.parametrize(
    ("blocks", "error", "said"),
    [
        ([4], OptionError, "block 4 does not exist: the model has blocks 0 to 3"),
        ([-1], OptionError, "block -1"),
        ([1, 1], OptionError, "twice"),
        ([0, 1, 2, 3], SurgeryError, "leaves no model"),
    ],
)
def test_bad_blocks_are_named(blocks: list[int], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        layerimp.prune(tiny("llama"), blocks)

"""Removal is exact and reversible, or refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from support.tiny import ALIKE, ALL, DECODERS, EAGER_ONLY, each_of, tiny
from transformers import AutoConfig, AutoModelForCausalLM

import layerimp
from layerimp.blocks import memory
from layerimp.blocks.bypass import bypassed
from layerimp.errors import CheckpointError, OptionError, SurgeryError
from layerimp.pruner import PrunePlan
from layerimp.surgery import proof
from layerimp.surgery import removal as surgery
from layerimp.surgery.removal import pruned
from layerimp.testing import BLOCKS, batch

KINDS = [
    pytest.param(name, attention, marks=[pytest.mark.slow] * (name in ALIKE))
    for attention in ("eager", "sdpa")
    for name in ALL
    if attention == "eager" or name not in EAGER_ONLY
]
SETS = [[0], [2], [3], [0, 3], [1, 2, 3]]


def logits(model: Any, **kwargs: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(**batch(2, 40), **kwargs).logits


def layer_indices(model: Any) -> list[int]:
    return [m.layer_idx for m in model.modules() if isinstance(getattr(m, "layer_idx", None), int)]


@pytest.mark.parametrize(("name", "attention"), KINDS)
def test_removed_equals_bypassed(name: str, attention: str) -> None:
    """Every set in every architecture, the sets taking turns between its kinds of attention."""
    for blocks in SETS if name in EAGER_ONLY else SETS[attention == "sdpa" :: 2]:
        model = tiny(name, attention=attention)
        with bypassed(layerimp.find_blocks(model), blocks):
            expected = logits(model, use_cache=False)
        assert layerimp.prune(model, blocks) is model
        assert len(layerimp.find_blocks(model)) == BLOCKS - len(blocks) == model.config.num_hidden_layers
        torch.testing.assert_close(logits(model, use_cache=False), expected, rtol=0, atol=0)
        assert set(layer_indices(model)) <= set(range(BLOCKS - len(blocks)))


@pytest.mark.parametrize("name", each_of(DECODERS))
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


@pytest.mark.same_bits("the outputs of a model after each application of a removal")
@pytest.mark.parametrize("name", each_of(ALL))
def test_a_removal_is_prepared_once_and_applied_often(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny(name)
    before = logits(model)
    removal = surgery.prepare(layerimp.find_blocks(model), [2, 0])
    assert (removal.removed, removal.kept) == ([0, 2], [1, 3])
    expected = logits(layerimp.prune(tiny(name), [0, 2]))
    monkeypatch.setattr(surgery, "shortened", lambda *_: pytest.fail("a second search"))
    outputs = []
    for _ in range(2):
        with removal.applied():
            outputs.append(logits(model))
        assert torch.equal(logits(model), before)
    assert torch.equal(*outputs)
    assert torch.equal(outputs[0], expected)


@pytest.mark.same_bits("the outputs of a model pruned beside the intact one, and in place")
@pytest.mark.parametrize("name", each_of(ALL))
def test_the_pruned_model_stands_beside_the_intact_one(name: str) -> None:
    model = tiny(name)
    before, weights = logits(model), {id(weight) for weight in model.parameters()}
    beside = surgery.prepare(layerimp.find_blocks(model), [1]).beside()
    assert {id(weight) for weight in beside.parameters()} <= weights
    assert not {id(module) for module in beside.modules()} & {id(module) for module in model.modules()}
    assert len(layerimp.find_blocks(beside)) == BLOCKS - 1 == beside.config.num_hidden_layers
    assert torch.equal(logits(model), before)
    assert model.config.num_hidden_layers == BLOCKS
    assert torch.equal(logits(beside), logits(layerimp.prune(tiny(name), [1])))
    weight = next(module for module in layerimp.find_blocks(beside)[0].modules() if hasattr(module, "weight"))
    weight.weight = torch.nn.Parameter(torch.zeros_like(weight.weight))
    assert torch.equal(logits(model), before)


def test_weights_are_never_there_twice() -> None:
    model = tiny("llama", tie_word_embeddings=True)
    beside = surgery.prepare(layerimp.find_blocks(model), [1]).beside()
    assert beside.lm_head.weight is beside.model.embed_tokens.weight is model.model.embed_tokens.weight
    assert beside.model.rotary_emb.inv_freq is not model.model.rotary_emb.inv_freq


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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_hides_no_error(dtype: torch.dtype) -> None:
    """A convolution after the first block, and one channel so large that half precision rounds the error away."""
    model = tiny("deberta-v2", conv_kernel_size=3, conv_act="gelu")
    with torch.no_grad():
        for block in model.deberta.encoder.layer:
            block.output.LayerNorm.bias[7] = 20.0
        model.deberta.encoder.conv.LayerNorm.bias[7] = 20.0
    model = model.to(dtype)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(SurgeryError, match="depends on their position"):
        layerimp.prune(model, [0])
    assert {name: value.dtype for name, value in model.state_dict().items()} == dict.fromkeys(weights, dtype)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    layerimp.prune(model, [2])
    assert len(layerimp.find_blocks(model)) == BLOCKS - 1


def test_without_memory_for_float32_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("deberta-v2", conv_kernel_size=3, conv_act="gelu").bfloat16()
    monkeypatch.setattr(proof, "deviation", lambda *_: proof.TOLERANCE)
    monkeypatch.setattr(memory, "free_bytes", lambda _device: 0)
    with pytest.raises(SurgeryError, match=r"cannot be told in half precision, and float32 needs .* GiB more memory"):
        layerimp.prune(model, [2])
    assert len(layerimp.find_blocks(model)) == BLOCKS


@pytest.mark.slow
def test_a_deep_model_is_searched_for_what_is_likely_first() -> None:
    """Many fields are as small as its depth; the one that matters comes late among them."""
    config = AutoConfig.for_model(
        "deepseek_v3",
        vocab_size=97,
        hidden_size=32,
        intermediate_size=32,
        moe_intermediate_size=16,
        num_hidden_layers=40,
        num_attention_heads=4,
        num_key_value_heads=4,
        q_lora_rank=16,
        kv_lora_rank=16,
        qk_rope_head_dim=8,
        qk_nope_head_dim=8,
        v_head_dim=8,
        n_routed_experts=8,
        n_group=2,
        topk_group=1,
        num_experts_per_tok=2,
        first_k_dense_replace=3,
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    layerimp.prune(model, [0, 7])
    assert (model.config.num_hidden_layers, model.config.first_k_dense_replace) == (38, 2)


def test_what_numbers_something_else_stays() -> None:
    names = {"0": "neg", "1": "pos", "2": "neu"}
    model = tiny("llama", my_names=dict(names), my_layer_sizes={"0": 1, "3": 4})
    layerimp.prune(model, [0])
    assert model.config.my_names == names
    assert model.config.my_layer_sizes == {"2": 4}


def test_a_model_that_cannot_run_is_not_saved_and_told_in_one_line(tmp_path: Any) -> None:
    """Its own head fails on the tuple that `return_dict=False` makes of its backbone's output."""
    model = tiny("llama", return_dict=False)
    layerimp.prune(model, [1])
    with pytest.raises(CheckpointError, match="cannot run on a few tokens"):
        layerimp.save(model, None, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_plan_for_another_model_is_refused() -> None:
    plan = PrunePlan(num_blocks=BLOCKS + 1, blocks=[1])
    model = tiny("llama")
    with pytest.raises(OptionError, match=f"the plan is for {BLOCKS + 1} blocks; the model has {BLOCKS}"):
        layerimp.prune(model, plan)
    with pytest.raises(OptionError, match="the plan is for"):
        layerimp.heal(model, plan, [batch()])
    assert model.config.num_hidden_layers == BLOCKS

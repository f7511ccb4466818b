"""Blocks are removed exactly: the pruned model computes what is left of it by hand."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from support.by_hand import ARCHITECTURES, predicted
from support.stirred import MIXED, SETS, close, left, logits, stirred
from support.tiny import ALL, each_of, tiny

import layerimp
from layerimp.surgery.removal import prepare, pruned
from layerimp.testing import BLOCKS, batch


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_by_hand_an_intact_model_computes_the_same(name: str) -> None:
    model, ids = stirred(name), batch(2, 20)["input_ids"]
    close(predicted(model, ids, left([])), logits(model, ids))


@pytest.mark.same_bits("the outputs of a model without blocks, and of its checkpoint")
@pytest.mark.parametrize(
    ("name", "blocks"),
    [(name, blocks) for name in ARCHITECTURES for blocks in (SETS if name in ("llama", "gemma3_text") else SETS[-1:])],
    ids=str,
)
def test_what_is_left_computes_what_it_does_by_hand(name: str, blocks: list[int], tmp_path: Path) -> None:
    model, ids = stirred(name), batch(2, 20)["input_ids"]
    expected = predicted(model, ids, left(blocks))
    layerimp.prune(model, blocks)
    close(logits(model, ids), expected)
    layerimp.save(model, None, tmp_path / "out")
    auto: Any = (
        transformers.AutoModelForCausalLM if model.can_generate() else (transformers.AutoModelForSequenceClassification)
    )
    reloaded = auto.from_pretrained(tmp_path / "out").eval()
    assert reloaded.config.num_hidden_layers == BLOCKS - len(blocks)
    assert torch.equal(logits(reloaded, ids), logits(model, ids))


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name != "bert"])
def test_generation_with_a_cache_goes_on_as_by_hand(name: str) -> None:
    model, ids = stirred(name), batch(1, 9)["input_ids"]
    intact = copy.deepcopy(model)
    layerimp.prune(model, [0, 2])
    generated = model.generate(  # type: ignore[operator]
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=8,
        min_new_tokens=8,
        do_sample=False,
        use_cache=True,
        return_dict_in_generate=True,
        output_logits=True,
    )
    for count, row in enumerate(generated.logits):
        close(row, predicted(intact, generated.sequences[:, : 9 + count], left([0, 2]))[:, -1])


@settings(max_examples=10, deadline=None, derandomize=True, database=None)
@given(
    name=st.sampled_from(sorted(ARCHITECTURES)),
    blocks=st.sets(st.integers(0, BLOCKS - 1), min_size=1, max_size=BLOCKS - 1),
)
def test_any_removal_leaves_what_is_computed_by_hand(name: str, blocks: set[int]) -> None:
    model, ids = stirred(name), batch(2, 20)["input_ids"]
    expected = predicted(model, ids, left(list(blocks)))
    layerimp.prune(model, list(blocks))
    close(logits(model, ids), expected)


@pytest.mark.parametrize("name", each_of(sorted(ALL)))
def test_a_block_comes_back_bit_for_bit(name: str) -> None:
    model = stirred(name)
    blocks, config = list(layerimp.find_blocks(model)), copy.deepcopy(model.config.to_dict())
    held = {path: id(part) for path, part in model.named_modules()}
    before = logits(model, batch()["input_ids"])
    with pruned(model, [1]):
        assert len(layerimp.find_blocks(model)) == BLOCKS - 1
        assert not torch.equal(logits(model, batch()["input_ids"]), before)
    assert all(a is b for a, b in zip(layerimp.find_blocks(model), blocks, strict=True))
    inside = {path: identity for path, identity in held.items() if path != layerimp.find_blocks(model).path}
    assert inside.items() <= {path: id(part) for path, part in model.named_modules()}.items()
    assert model.config.to_dict() == config
    assert torch.equal(logits(model, batch()["input_ids"]), before)


@pytest.mark.parametrize("name", ["llama", "bert", "gemma3_text"])
def test_the_pruned_model_stands_beside_the_intact_one(name: str) -> None:
    model = stirred(name)
    before, weights = logits(model, batch()["input_ids"]), {id(weight) for weight in model.parameters()}
    removal = prepare(layerimp.find_blocks(model), [1])
    assert (removal.removed, removal.kept) == ([1], [0, 2, 3])
    beside = removal.beside()
    assert {id(weight) for weight in beside.parameters()} <= weights
    assert not {id(module) for module in beside.modules()} & {id(module) for module in model.modules()}
    assert torch.equal(logits(model, batch()["input_ids"]), before)
    assert torch.equal(
        logits(beside, batch()["input_ids"]), logits(layerimp.prune(stirred(name), [1]), batch()["input_ids"])
    )


def test_kinds_of_attention_follow_the_blocks() -> None:
    model = layerimp.prune(stirred("gemma3_text"), [1])
    assert model.config.layer_types == [MIXED[0], MIXED[2], MIXED[3]]


def test_dense_and_sparse_follow_the_blocks() -> None:
    """Blocks 1 and 3 are dense."""
    model = layerimp.prune(stirred("qwen3_moe"), [1])
    assert model.config.mlp_only_layers == [2]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_verified_too(dtype: torch.dtype) -> None:
    model = stirred("gemma2").to(dtype)
    weights = {id(parameter) for parameter in model.parameters()}
    layerimp.prune(model, [0, 2])
    assert len(layerimp.find_blocks(model)) == BLOCKS - 2
    assert {id(parameter) for parameter in model.parameters()} < weights


def test_a_model_in_training_mode_is_pruned_as_well() -> None:
    model = tiny("gpt2").train()
    assert model.config.resid_pdrop > 0
    state = torch.get_rng_state()
    layerimp.prune(model, [1])
    assert model.training
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), state)

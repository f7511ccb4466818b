"""Seams are removed exactly: the pruned model computes the same as its sublayers by hand."""

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
from support.stirred import MIXED, SERIAL, SETS, close, left, logits, stirred
from support.tiny import PARALLEL, each_of, tiny

import layerimp
from layerimp.blocks.bypass import bypassed
from layerimp.errors import ModelError, SurgeryError
from layerimp.steps import Step, Sublayer, step_of
from layerimp.surgery.removal import prepare, pruned
from layerimp.testing import BLOCKS, batch


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_by_hand_an_intact_model_computes_the_same(name: str) -> None:
    model, ids = stirred(name), batch(2, 20)["input_ids"]
    close(predicted(model, ids, left([])), logits(model, ids))


@pytest.mark.same_bits("the outputs of a model without a seam, and of its checkpoint")
@pytest.mark.parametrize(
    ("name", "steps"),
    [(name, steps) for name in ARCHITECTURES for steps in (SETS if name in ("llama", "gemma3_text") else SETS[-2:])],
    ids=str,
)
def test_what_is_left_computes_what_its_sublayers_do(name: str, steps: list[Step], tmp_path: Path) -> None:
    model, ids = stirred(name), batch(2, 20)["input_ids"]
    expected = predicted(model, ids, left(steps))
    layerimp.prune(model, steps)
    close(logits(model, ids), expected)
    layerimp.save(model, None, tmp_path / "out")
    auto: Any = (
        transformers.AutoModelForCausalLM if model.can_generate() else (transformers.AutoModelForSequenceClassification)
    )
    reloaded = auto.from_pretrained(tmp_path / "out").eval()
    assert reloaded.config.num_hidden_layers == BLOCKS - len(steps)
    assert torch.equal(logits(reloaded, ids), logits(model, ids))


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name != "bert"])
def test_generation_with_a_cache_goes_on_as_by_hand(name: str) -> None:
    model, ids = stirred(name), batch(1, 9)["input_ids"]
    intact = copy.deepcopy(model)
    layerimp.prune(model, ["0/1", "2/3"])
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
    for step, row in enumerate(generated.logits):
        close(row, predicted(intact, generated.sequences[:, : 9 + step], left(["0/1", "2/3"]))[:, -1])


@st.composite
def removals(draw: st.DrawFn) -> list[Step]:
    """Any steps that can be taken one after another, each of two sublayers that are neighbours by then."""
    row = [Sublayer.at(depth) for depth in range(2 * BLOCKS)]
    steps: list[Step] = []
    for _ in range(draw(st.integers(1, BLOCKS - 1))):
        at = draw(st.integers(0, len(row) - 2))
        steps.append(step_of(row[at : at + 2]))
        del row[at : at + 2]
    return steps


@settings(max_examples=10, deadline=None, derandomize=True, database=None)
@given(name=st.sampled_from(sorted(ARCHITECTURES)), steps=removals())
def test_any_removal_leaves_what_is_computed_by_hand(name: str, steps: list[Step]) -> None:
    model, ids = stirred(name), batch(2, 20)["input_ids"]
    expected = predicted(model, ids, left(steps))
    layerimp.prune(model, steps)
    close(logits(model, ids), expected)


@pytest.mark.parametrize("name", each_of(SERIAL))
def test_a_seam_comes_back_bit_for_bit(name: str) -> None:
    model = stirred(name)
    blocks, config = list(layerimp.find_blocks(model)), copy.deepcopy(model.config.to_dict())
    held = {path: id(part) for path, part in model.named_modules()}
    before = logits(model, batch()["input_ids"])
    with pruned(model, ["1/2"]):
        assert len(layerimp.find_blocks(model)) == BLOCKS - 1
        assert not torch.equal(logits(model, batch()["input_ids"]), before)
    assert all(a is b for a, b in zip(layerimp.find_blocks(model), blocks, strict=True))
    inside = {path: identity for path, identity in held.items() if path != layerimp.find_blocks(model).path}
    assert inside.items() <= {path: id(part) for path, part in model.named_modules()}.items()
    assert model.config.to_dict() == config
    assert torch.equal(logits(model, batch()["input_ids"]), before)


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "bert", "qwen3_moe"])
def test_steps_that_touch_remove_blocks(name: str) -> None:
    by_seams, by_blocks = stirred(name), stirred(name)
    layerimp.prune(by_seams, ["1/2", "1.attn,2.mlp"])
    layerimp.prune(by_blocks, [1, 2])
    assert torch.equal(logits(by_seams, batch()["input_ids"]), logits(by_blocks, batch()["input_ids"]))
    assert by_seams.config.to_dict() == by_blocks.config.to_dict()


@pytest.mark.parametrize("name", ["llama", "bert", "gemma3_text"])
def test_the_pruned_model_stands_beside_the_intact_one(name: str) -> None:
    model = stirred(name)
    before, weights = logits(model, batch()["input_ids"]), {id(weight) for weight in model.parameters()}
    removal = prepare(layerimp.find_blocks(model), ["1/2"])
    assert (removal.steps, removal.kept) == (["1/2"], [(0, 0), (1, 2), (3, 3)])
    beside = removal.beside()
    assert {id(weight) for weight in beside.parameters()} <= weights
    assert not {id(module) for module in beside.modules()} & {id(module) for module in model.modules()}
    assert torch.equal(logits(model, batch()["input_ids"]), before)
    assert torch.equal(
        logits(beside, batch()["input_ids"]), logits(layerimp.prune(stirred(name), ["1/2"]), batch()["input_ids"])
    )


def test_kinds_of_attention_follow_the_attention() -> None:
    model = layerimp.prune(stirred("gemma3_text"), ["1/2"])
    assert model.config.layer_types == [MIXED[0], MIXED[1], MIXED[3]]


def test_dense_and_sparse_follow_the_mlp() -> None:
    """Blocks 1 and 3 are dense. What is left has the MLPs of 0, 2 and 3."""
    model = layerimp.prune(stirred("qwen3_moe"), ["1/2"])
    assert model.config.mlp_only_layers == [2]
    model = tiny("qwen3_moe", decoder_sparse_step=2)
    layerimp.prune(model, ["1/2"])
    kinds = [type(block.mlp).__name__ for block in layerimp.find_blocks(model)]
    assert kinds == ["Qwen3MoeMLP", "Qwen3MoeMLP", "Qwen3MoeSparseMoeBlock"]


@pytest.mark.parametrize("name", each_of(sorted(PARALLEL)))
def test_parallel_branches_have_no_seams(name: str) -> None:
    model = tiny(name)
    before = logits(model, batch()["input_ids"])
    with pytest.raises(SurgeryError, match=r"seam 1/2 cannot be removed: block 1 of .*: the two are parallel branches"):
        layerimp.prune(model, ["1/2"])
    with pytest.raises(ModelError, match="parallel branches"), bypassed(layerimp.find_blocks(model), ["1/2"]):
        pass
    assert torch.equal(logits(model, batch()["input_ids"]), before)
    layerimp.prune(model, ["1/2", "1.attn,2.mlp"])  # no block is left in part


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_proved_too(dtype: torch.dtype) -> None:
    model = stirred("gemma2").to(dtype)
    weights = {id(parameter) for parameter in model.parameters()}
    layerimp.prune(model, ["0/1", "2/3"])
    assert len(layerimp.find_blocks(model)) == BLOCKS - 2
    assert {id(parameter) for parameter in model.parameters()} < weights


def test_a_model_in_training_mode_is_divided_as_well() -> None:
    model = tiny("gpt2").train()
    assert model.config.resid_pdrop > 0
    state = torch.get_rng_state()
    layerimp.prune(model, ["1/2"])
    assert model.training
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), state)

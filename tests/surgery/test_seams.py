"""Seams are removed exactly: the pruned model computes the same as its sublayers by hand."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import removal
import torch
import transformers
import zoo
from hypothesis import given, settings
from hypothesis import strategies as st
from support.by_hand import ARCHITECTURES, predicted
from support.tiny import ALL, PARALLEL, tiny
from transformers import PreTrainedModel

import layerimp
from layerimp.blocks.bypass import bypassed
from layerimp.blocks.equivalence import last_hidden
from layerimp.blocks.halves import find_halves
from layerimp.blocks.middle import Halves, Whole, changing_middle, watching_middle
from layerimp.errors import ModelError, OptionError, SurgeryError
from layerimp.registry.catalog import registry
from layerimp.scoring.engine import measure
from layerimp.steps import Step, Sublayer, removed_by, step_of
from layerimp.surgery.removal import prepare, pruned
from layerimp.testing import BLOCKS, batch, padded_batch

MIXED = ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]
CHANGES: dict[str, dict[str, Any]] = {
    "gemma3_text": {"layer_types": MIXED, "sliding_window": 4},
    "qwen3_moe": {"mlp_only_layers": [1, 3], "norm_topk_prob": True},
}
SETS: list[list[Step]] = [["1/2"], ["0/1", 3], ["1/2", "2/3"], ["0/1", "2/3"], ["1/2", "1.attn,2.mlp"], [0, "2/3"]]
SERIAL = [name for name in ALL if name not in PARALLEL]


def stirred(name: str, **changes: Any) -> PreTrainedModel:
    """A tiny model whose norms and biases differ from block to block."""
    model = tiny(name, **{**CHANGES.get(name, {}), **changes})
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=random))
    return model


def left(steps: list[Step]) -> list[Sublayer]:
    """The sublayers that are left after some steps."""
    gone = removed_by(steps)
    return [one for depth in range(2 * BLOCKS) if (one := Sublayer.at(depth)) not in gone]


def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    return found


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    scale = float(expected.abs().max())
    torch.testing.assert_close(found / scale, expected / scale, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_by_hand_an_intact_model_computes_the_same(name: str) -> None:
    model, ids = stirred(name), batch(2, 20)["input_ids"]
    close(predicted(model, ids, left([])), logits(model, ids))


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("steps", SETS, ids=str)
def test_what_is_left_computes_what_its_sublayers_do(name: str, steps: list[Step], tmp_path: Path) -> None:
    model, ids = stirred(name), batch(2, 20)["input_ids"]
    expected = predicted(model, ids, left(steps))
    close(expected, predicted(copy.deepcopy(model), ids, left(steps)))
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
    found = model.generate(  # type: ignore[operator]
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=8,
        min_new_tokens=8,
        do_sample=False,
        use_cache=True,
        return_dict_in_generate=True,
        output_logits=True,
    )
    for step, row in enumerate(found.logits):
        close(row, predicted(intact, found.sequences[:, : 9 + step], left(["0/1", "2/3"]))[:, -1])


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


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(name=st.sampled_from(sorted(ARCHITECTURES)), steps=removals())
def test_any_removal_leaves_what_is_computed_by_hand(name: str, steps: list[Step]) -> None:
    model, ids = stirred(name), batch(2, 20)["input_ids"]
    expected = predicted(model, ids, left(steps))
    layerimp.prune(model, steps)
    close(logits(model, ids), expected)


@pytest.mark.parametrize("name", SERIAL)
def test_a_seam_comes_back_bit_for_bit(name: str) -> None:
    model = stirred(name)
    blocks, config = list(layerimp.find_blocks(model)), copy.deepcopy(model.config.to_dict())
    held = {path: id(part) for path, part in model.named_modules()}
    before = logits(model, batch()["input_ids"])
    with pruned(model, ["1/2"]):
        assert len(layerimp.find_blocks(model)) == BLOCKS - 1
        assert not torch.equal(logits(model, batch()["input_ids"]), before)
    assert all(a is b for a, b in zip(layerimp.find_blocks(model), blocks, strict=True))
    inside = {path: one for path, one in held.items() if path != layerimp.find_blocks(model).path}
    assert inside.items() <= {path: id(part) for path, part in model.named_modules()}.items()
    assert model.config.to_dict() == config
    assert torch.equal(logits(model, batch()["input_ids"]), before)


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "bert", "qwen3_moe"])
def test_steps_that_touch_remove_blocks(name: str) -> None:
    one, other = stirred(name), stirred(name)
    layerimp.prune(one, ["1/2", "1.attn,2.mlp"])
    layerimp.prune(other, [1, 2])
    assert torch.equal(logits(one, batch()["input_ids"]), logits(other, batch()["input_ids"]))
    assert one.config.to_dict() == other.config.to_dict()


@pytest.mark.parametrize("name", ["llama", "bert", "gemma3_text"])
def test_the_pruned_model_stands_beside_the_intact_one(name: str) -> None:
    model = stirred(name)
    before, weights = logits(model, batch()["input_ids"]), {id(weight) for weight in model.parameters()}
    removal = prepare(layerimp.find_blocks(model), ["1/2"])
    assert (removal.gone, removal.kept) == (["1/2"], [(0, 0), (1, 2), (3, 3)])
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


@pytest.mark.parametrize("name", sorted(PARALLEL))
def test_parallel_branches_have_no_seams(name: str) -> None:
    model = tiny(name)
    before = logits(model, batch()["input_ids"])
    with pytest.raises(SurgeryError, match=r"seam 1/2 cannot be removed: block 1 of .*: the two are parallel branches"):
        layerimp.prune(model, ["1/2"])
    with pytest.raises(ModelError, match="parallel branches"), bypassed(layerimp.find_blocks(model), ["1/2"]):
        pass
    assert torch.equal(logits(model, batch()["input_ids"]), before)
    layerimp.prune(model, ["1/2", "1.attn,2.mlp"])  # no block is left in part


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (["1/3"], "is no seam"),
        (["3/4"], "block 4 .3/4. does not exist"),
        (["1/2", 1], "1/2 and 1 both remove 1.mlp"),
        (["1.attn,2.mlp"], "would not take turns"),
        (["first"], "is no block"),
    ],
)
def test_steps_that_cannot_be_taken_are_named(steps: list[Step], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        layerimp.prune(tiny("llama"), steps)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_proved_too(dtype: torch.dtype) -> None:
    model = stirred("gemma2").to(dtype)
    weights = {id(parameter) for parameter in model.parameters()}
    layerimp.prune(model, ["0/1", "2/3"])
    assert len(layerimp.find_blocks(model)) == BLOCKS - 2
    assert {id(parameter) for parameter in model.parameters()} < weights


@pytest.mark.parametrize(
    ("kind", "step", "said"),
    [
        ("xlnet", "0/1", "cannot generate past seam 0/1"),  # its second stream passes through the block as well
        ("olmo_hybrid", "4/5", "blocks 4 and 5 hold their attention and their MLP in different forms"),
        ("diffllama", "0/1", "self_attn.lambda_init would change"),
        ("gpt_neox_japanese", "4/5", "block 5 of .* cannot be divided into attention and MLP"),
    ],
)
def test_what_cannot_be_told_is_refused(kind: str, step: str, said: str) -> None:
    model = zoo.build(kind, "causal")
    before = removal.logits(model)
    with pytest.raises(SurgeryError, match=said):
        layerimp.prune(model, [step])
    assert torch.equal(removal.logits(model), before)


MANY = "bart dbrx deepseek_v3 gemma4_text granitemoehybrid jamba lfm2_moe mamba2 minimax mvp qwen3_next rwkv".split()
NO_SEAMS = {"mamba2", "rwkv"}


@pytest.mark.parametrize("kind", MANY)
def test_in_many_architectures_a_seam_is_exact_or_refused(kind: str) -> None:
    case = removal.try_removal(lambda: zoo.build(kind, "causal"), "causal", ["0/1"])
    assert case.outcome == ("refused" if kind in NO_SEAMS else "exact"), case.said


class TestTheTrialCanFail:
    """Each of these breaks the removal of a seam in another way, which the trial has to detect."""

    @pytest.fixture(autouse=True)
    def _unproved(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("layerimp.surgery.removal._prove", lambda *_args: True)
        monkeypatch.setattr("layerimp.checkpoint.saving.check_checkpoint", lambda *_args: None)

    def outcome(self, kind: str) -> tuple[str, str]:
        case = removal.try_removal(lambda: zoo.build(kind, "causal"), "causal", ["2/3"])
        return case.outcome, case.said

    def test_unbroken(self) -> None:
        assert self.outcome("gemma2") == ("exact", "")

    @pytest.mark.parametrize("other", ["1/2", 2, 3])
    def test_something_else_than_asked(self, monkeypatch: pytest.MonkeyPatch, other: Step) -> None:
        real = layerimp.prune
        monkeypatch.setattr(layerimp, "prune", lambda model, _steps: real(model, [other]))
        outcome, said = self.outcome("llama")
        assert (outcome, "logits in memory are off" in said) == ("wrong", True)

    @pytest.mark.parametrize("astray", ["post_attention_layernorm", "input_layernorm", "self_attn.k_proj"])
    def test_a_part_that_follows_the_other_half(self, monkeypatch: pytest.MonkeyPatch, astray: str) -> None:
        real = layerimp.prune

        def prune(model: Any, steps: Any) -> Any:
            blocks = list(layerimp.find_blocks(model))
            real(model, steps)
            donor = blocks[2 if astray == "post_attention_layernorm" else 3]
            layerimp.find_blocks(model)[2].set_submodule(astray, donor.get_submodule(astray))
            return model

        monkeypatch.setattr(layerimp, "prune", prune)
        outcome, said = self.outcome("llama")
        assert (outcome, "logits in memory are off" in said) == ("wrong", True)

    def test_a_stale_index(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("layerimp.surgery.application._set", lambda *_args: None)
        outcome, said = self.outcome("llama")
        assert (outcome, "cached generation" in said) == ("wrong", True)


class TestHalves:
    """The halves of a block, and the hidden states between them."""

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
    def test_they_are_found(self, name: str, mlp: set[str], reader: str, giver: str | None) -> None:
        for halves in find_halves(layerimp.find_blocks(stirred(name))):
            assert isinstance(halves, Halves)
            assert (halves.mlp, halves.reader, halves.giver) == (mlp, reader, giver)

    def test_a_module_that_holds_parts_of_both_is_gone_into(self) -> None:
        stack = layerimp.find_blocks(zoo.build("dbrx", "causal"))
        (halves,) = set(find_halves(stack))
        assert isinstance(halves, Halves)
        assert halves.mlp == {"ffn", "norm_attn_norm.norm_2"}

    def test_a_number_beside_the_modules_is_of_the_half_that_it_changes(self) -> None:
        halves = find_halves(layerimp.find_blocks(tiny("gemma4_text")))[0]
        assert isinstance(halves, Halves)
        assert "layer_scalar" in halves.mlp

    def test_what_comes_after_the_mlp_belongs_to_it(self) -> None:
        """Gemma 4 adds an embedding of each token after the MLP."""
        halves = find_halves(layerimp.find_blocks(zoo.build("gemma4_text", "causal")))[0]
        assert isinstance(halves, Halves)
        assert {"mlp", "per_layer_projection"} <= halves.mlp

    @pytest.mark.parametrize("kind", ["ibert", "mobilebert"])
    def test_a_norm_at_the_end_is_no_mlp(self, kind: str) -> None:
        """Only one addition is visible in these blocks, and a norm reads it: that of the attention, or the last one."""
        assert {type(one) for one in find_halves(layerimp.find_blocks(zoo.build(kind, "classifier")))} == {Whole}

    @pytest.mark.parametrize("name", SERIAL)
    def test_half_precision_finds_the_same(self, name: str) -> None:
        wide, narrow = (find_halves(layerimp.find_blocks(tiny(name, dtype=d))) for d in (torch.float32, torch.bfloat16))
        for one, other in zip(wide, narrow, strict=True):
            assert isinstance(one, Halves)
            assert isinstance(other, Halves)
            assert (one.mlp, one.reader, one.giver) == (other.mlp, other.reader, other.giver)
            assert [tap.path for tap in one.branches] == [tap.path for tap in other.branches]

    @pytest.mark.parametrize("name", SERIAL)
    def test_the_middle_can_be_read_and_replaced(self, name: str) -> None:
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
        assert [one.shape for one in seen] == [(1, 12, 32)] * 2
        assert torch.equal(last_hidden(stack), before)
        assert not any("forward" in vars(block) for block in stack)

    @pytest.mark.parametrize("name", sorted(PARALLEL))
    def test_parallel_branches_have_none(self, name: str) -> None:
        assert set(find_halves(layerimp.find_blocks(tiny(name)))) == {Whole("the two are parallel branches")}

    def test_a_norm_in_both_halves_is_told(self) -> None:
        model = tiny("llama")
        for block in model.model.layers:
            block.post_attention_layernorm = block.input_layernorm
        (whole,) = set(find_halves(layerimp.find_blocks(model)))
        assert whole == Whole("input_layernorm is used in both")


class TestBypass:
    """The intact model with sublayers bypassed."""

    @pytest.mark.parametrize("name", ARCHITECTURES)
    @pytest.mark.parametrize("steps", SETS, ids=str)
    def test_it_computes_what_is_left(self, name: str, steps: list[Step]) -> None:
        model, ids = stirred(name), batch(2, 20)["input_ids"]
        with bypassed(layerimp.find_blocks(model), steps):
            close(logits(model, ids), predicted(model, ids, left(steps)))
        close(logits(model, ids), predicted(model, ids, left([])))

    def test_with_two_additions_before_the_mlp_both_are_left_out(self) -> None:
        """A decoder attends to its own text and to another's."""
        case = removal.try_removal(lambda: zoo.build("t5", "classifier"), "classifier", ["2/3"])
        assert (case.outcome, case.said) == ("exact", "")


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "bert", "bloom"])
@pytest.mark.parametrize("scorer", ["block-influence", "taylor", "perplexity", "gbis", "lrp"])
def test_past_a_seam_blocks_are_scored_as_without_it(name: str, scorer: str) -> None:
    """Only untouched blocks are scored, in the model without the seam."""
    if (name, scorer) == ("bert", "lrp"):
        pytest.skip("LRP refuses BERT")
    model, batches = stirred(name), [batch(2, 12), padded_batch((12, 5, 9), seed=1)]
    stack = layerimp.find_blocks(model)
    made: Any = registry().create("scorer", scorer, {}, BLOCKS - 2)
    found = measure(stack, batches, {scorer: made}, removed=["1/2"])[scorer]
    assert found.blocks == [0, 3]
    with pruned(model, ["1/2"]):
        short: Any = registry().create("scorer", scorer, {}, BLOCKS - 1)
        expected = measure(stack, batches, {scorer: short})[scorer]
    assert found.scores == pytest.approx([expected.scores[0], expected.scores[2]], rel=1e-4)

"""Removal is exact or refused in many architectures; the whole sweep is `benchmarks/architectures.py`."""

from __future__ import annotations

from typing import Any

import pytest
import removal
import torch
import zoo

import layerimp
from layerimp.checkpoint import saving
from layerimp.errors import SurgeryError
from layerimp.surgery import application, proof
from layerimp.surgery.removal import pruned

CAUSAL = (
    "afmoe bamba bart bert big_bird bloom cohere2 dbrx deepseek_v3 deepseek_v4 dots3_note_text ernie4_5_moe falcon_h1 "
    "gemma2 gpt_neo gpt_oss granitemoehybrid helium jetmoe kimi_linear lfm2 llama4 longcat_flash mamba2 minicpm3 "
    "minimax mpt nemotron_h opt phi3 prophetnet qwen2_moe qwen3_next qwen4_exp_text recurrent_gemma smollm3 whisper "
    "xlstm"
).split()
CLASSIFIERS = (
    "albert bart deberta-v2 distilbert electra esm gemma3_text gpt2 ibert mobilebert qwen3 roberta squeezebert t5gemma"
).split()
QUICK = frozenset("albert bart deberta-v2 deepseek_v3 falcon_h1 gemma2 gpt_oss mamba2 t5gemma".split())
"""A family of each kind: an encoder-decoder, an encoder, states, experts, windows, and a type that is refused."""
REFUSED = {"albert": "are one block that runs 6 times", "nemotron_h": "cannot run with a cache"}
"""What is refused, and why. Since Transformers 5.25 the first block of a `nemotron_h` has to be one with a cache."""
PART = [0, zoo.BLOCKS // 2, zoo.BLOCKS - 1]


@pytest.mark.parametrize(
    ("kind", "head"),
    [
        pytest.param(kind, head, marks=[pytest.mark.slow] * (kind not in QUICK))
        for head, kinds in (("causal", CAUSAL), ("classifier", CLASSIFIERS))
        for kind in kinds
    ],
)
def test_a_removal_is_exact_or_refused(kind: str, head: str) -> None:
    trial = removal.try_all(kind, head, scorers=["block-influence"], cases=[PART])
    assert not trial.built
    assert [(case.outcome, case.said) for case in trial.cases if case.outcome != "exact"] == [
        (case.outcome, case.said) for case in trial.cases if kind in REFUSED and REFUSED[kind] in case.said
    ]
    assert not any(said.startswith("crash") for said in trial.scorers.values())


def test_a_hybrid_keeps_a_block_of_attention() -> None:
    """Without one, Transformers cannot count the tokens in its cache."""
    case = removal.try_removal(lambda: zoo.build("qwen3_next", "causal"), "causal", [2, 4])
    assert case.outcome == "refused"
    assert "cannot run with a cache without blocks 2, 4" in case.said


def test_what_each_depth_starts_from_is_not_shifted() -> None:
    model = zoo.build("diffllama", "causal")
    with pytest.raises(SurgeryError, match=r"self_attn.lambda_init would change from 0.35.* to 0.2"):
        layerimp.prune(model, [0])
    layerimp.prune(model, [zoo.BLOCKS - 1])


def test_a_producer_of_shared_keys_and_values_stays() -> None:
    model = zoo.build("gemma3n_text", "causal")
    with pytest.raises(SurgeryError, match="store_full_length_kv"):
        layerimp.prune(model, [3])


def test_tables_with_a_slice_per_block_follow() -> None:
    model: Any = zoo.build("gemma3n_text", "causal")
    width = model.model.embed_tokens_per_layer.weight.shape[1] // zoo.BLOCKS
    table = model.model.embed_tokens_per_layer.weight.detach().clone()
    before, config = removal.logits(model), model.config.to_dict()
    with pruned(model, [0]):
        torch.testing.assert_close(model.model.embed_tokens_per_layer.weight, table[:, width:], rtol=0, atol=0)
    assert torch.equal(removal.logits(model), before)
    assert model.config.to_dict() == config


class TestTheTrialCanFail:
    """Each of these breaks a removal in another way, which the trial has to detect."""

    @pytest.fixture
    def unproved(self, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
        """Turns off the proofs of removals and checkpoints."""
        monkeypatch.setattr(proof, "deviation", lambda *_args: 0.0)
        monkeypatch.setattr(saving, "check_checkpoint", lambda *_args: None)
        return monkeypatch

    def outcome(self, kind: str = "gpt_oss", blocks: tuple[int, ...] = (1,)) -> removal.Case:
        return removal.try_removal(lambda: zoo.build(kind, "causal"), "causal", list(blocks))

    def test_unbroken(self, unproved: pytest.MonkeyPatch) -> None:
        assert self.outcome().outcome == "exact"

    def test_stale_kinds(self, unproved: pytest.MonkeyPatch) -> None:
        """Windows keep their old places, which shows only in tokens beyond the window."""
        real = layerimp.prune

        def prune(model: Any, blocks: Any) -> Any:
            kinds = list(model.config.layer_types)
            real(model, blocks)
            model.config.layer_types = kinds[: len(kinds) - len(blocks)]
            for block, kind in zip(layerimp.find_blocks(model), kinds, strict=False):
                block.attention_type = kind
            return model

        unproved.setattr(layerimp, "prune", prune)
        case = self.outcome()
        assert (case.outcome, "logits in memory are off" in case.said) == ("wrong", True)

    def test_a_stale_index(self, unproved: pytest.MonkeyPatch) -> None:
        """Shows only in generation with a cache."""
        real = layerimp.prune

        def prune(model: Any, blocks: Any) -> Any:
            indices = {id(block.self_attn): block.self_attn.layer_idx for block in layerimp.find_blocks(model)}
            real(model, blocks)
            for block in layerimp.find_blocks(model):
                block.self_attn.layer_idx = indices[id(block.self_attn)]
            return model

        unproved.setattr(layerimp, "prune", prune)
        case = self.outcome("llama")
        assert case.outcome == "wrong"
        assert "cached generation" in case.said

    def test_another_block_than_asked(self, unproved: pytest.MonkeyPatch) -> None:
        real = layerimp.prune
        unproved.setattr(layerimp, "prune", lambda model, blocks: real(model, [blocks[0] + 1]))
        assert self.outcome("llama").outcome == "wrong"

    def test_a_checkpoint_of_another_model(self, unproved: pytest.MonkeyPatch) -> None:
        real = layerimp.save

        def save(model: Any, *args: Any) -> Any:
            with torch.no_grad():
                layerimp.find_blocks(model)[0].self_attn.o_proj.weight.mul_(1.001)
            return real(model, *args)

        unproved.setattr(layerimp, "save", save)
        case = self.outcome("llama")
        assert (case.outcome, "reloaded are off" in case.said) == ("wrong", True)


def test_a_broken_removal_is_refused_by_layerimp_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same stale index, with the proofs turned on."""
    monkeypatch.setattr(application, "_set", lambda *_args: None)
    with pytest.raises(SurgeryError, match="with a cache without block 1"):
        layerimp.prune(zoo.build("llama", "causal"), [1])


def test_windows_are_short_while_a_removal_is_proved(monkeypatch: pytest.MonkeyPatch) -> None:
    """A window longer than the trial would hide which blocks look how far back."""
    config = zoo.config_of("gemma2", sliding_window=64)
    model: Any = zoo.build("gemma2", "causal", config)
    seen: list[int] = []
    model.model.register_forward_pre_hook(lambda *_args: seen.append(model.config.sliding_window))
    layerimp.prune(model, [1])
    assert min(seen) < 8
    assert model.config.sliding_window == 64

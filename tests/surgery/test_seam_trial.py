"""The trial of a removed seam can fail."""

from __future__ import annotations

from typing import Any

import pytest
import removal
import torch
import zoo

import layerimp
from layerimp.checkpoint import saving
from layerimp.errors import SurgeryError
from layerimp.steps import Step
from layerimp.surgery import proof


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
QUICK = {"bart", "deepseek_v3", "granitemoehybrid", "mamba2", "qwen3_next"}
NO_SEAMS = {"mamba2", "rwkv"}


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind not in QUICK)) for kind in MANY])
def test_in_many_architectures_a_seam_is_exact_or_refused(kind: str) -> None:
    case = removal.try_removal(lambda: zoo.build(kind, "causal"), "causal", ["0/1"])
    assert case.outcome == ("refused" if kind in NO_SEAMS else "exact"), case.said


class TestTheTrialCanFail:
    """Each of these breaks the removal of a seam in another way, which the trial has to detect."""

    @pytest.fixture(autouse=True)
    def _unproved(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(proof, "deviation", lambda *_args: 0.0)
        monkeypatch.setattr(saving, "check_checkpoint", lambda *_args: None)

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

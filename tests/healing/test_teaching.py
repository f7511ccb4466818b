"""The intact model as a teacher: divergences and their gradients."""

from __future__ import annotations

import pytest
import torch
from support.healing_cases import case_of
from support.tiny import DECODERS, classifier, tiny
from torch.nn import functional

from layerimp.healer import Case
from layerimp.healing import Teaching
from layerimp.healing import teaching as module
from layerimp.testing import batch, padded_batch

TEXT = [batch(3, 9, seed=1), padded_batch((7, 4, 9))]


def naive(case: Case, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """The divergence from whole logits, prediction by prediction."""
    total = torch.zeros(())
    ours = case.pruned.model.eval()(**inputs).logits
    with torch.no_grad():
        theirs = case.intact.model.eval()(**inputs).logits
    for row, mask in enumerate(inputs["attention_mask"]):
        for place in range(int(mask.sum()) - 1):
            p, q = (logits[row, place].softmax(-1) for logits in (theirs, ours))
            total = total + (p * (p.log() - q.log())).sum()
    return total


@pytest.mark.parametrize("chunk", [1, 1 << 24])
@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2", "opt", "phi"])
def test_divergence_and_its_gradient(name: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Value and gradient as from whole logits, with caps and scales of the logits, however few logits exist at once."""
    monkeypatch.setattr(module, "CHUNK_LOGITS", chunk)
    assert name in DECODERS
    case = case_of(tiny(name), [1])
    weight = next(value for value in case.pruned[0].parameters() if value.ndim == 2)
    for inputs in TEXT:
        divergence, count = Teaching(case).divergence(inputs)
        assert count == int(inputs["attention_mask"].sum()) - len(inputs["attention_mask"])
        assert Teaching(case).predictions(inputs) == count
        expected = naive(case, inputs)
        torch.testing.assert_close(divergence.detach(), expected.detach(), rtol=1e-4, atol=1e-6)
        (slope,), (aim,) = (torch.autograd.grad(each, weight) for each in (2 * divergence, 2 * expected))
        torch.testing.assert_close(slope, aim, rtol=1e-3, atol=1e-6)


def test_the_divergence_of_labels() -> None:
    case = case_of(classifier("bert"), [1, 2])
    head = case.pruned.model.classifier  # another one: nearly equal distributions diverge as much in either direction
    head.weight = torch.nn.Parameter(-10 * head.weight.detach())
    divergence, count = Teaching(case).divergence(TEXT[0])
    ours = functional.log_softmax(case.pruned.model.eval()(**TEXT[0]).logits, dim=-1)
    with torch.no_grad():
        theirs = functional.log_softmax(case.intact.model.eval()(**TEXT[0]).logits, dim=-1)
    assert count == Teaching(case).predictions(TEXT[0]) == 3
    expected, reverse = (theirs.exp() * (theirs - ours)).sum(), (ours.exp() * (ours - theirs)).sum()
    torch.testing.assert_close(divergence, expected, rtol=1e-4, atol=1e-7)
    assert (expected - reverse).abs() > 0.01 * expected
    assert torch.autograd.grad(divergence, next(case.pruned[0].parameters()))[0].abs().sum() > 0


def test_a_pupil_like_its_teacher_diverges_by_nothing() -> None:
    """The pruned model lacks only a block that adds nothing, so it equals the intact model."""
    model = tiny("llama")
    with torch.no_grad():
        for linear in (model.model.layers[2].self_attn.o_proj, model.model.layers[2].mlp.down_proj):
            linear.weight.zero_()
    teaching = Teaching(case_of(model, [2]))
    for inputs in TEXT:
        assert abs(teaching.divergence(inputs)[0].item()) < 1e-5

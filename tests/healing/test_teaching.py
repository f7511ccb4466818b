"""The intact model as a teacher: divergences and their gradients, streams, and the metric of a head."""

from __future__ import annotations

import pytest
import torch
from support.healing_cases import case_of
from support.tiny import DECODERS, classifier, tiny
from torch.nn import functional

from layerimp.healer import Case
from layerimp.healing import Teaching
from layerimp.healing import teaching as module
from layerimp.steps import Step
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
    divergence, count = Teaching(case).divergence(TEXT[0])
    ours = functional.log_softmax(case.pruned.model.eval()(**TEXT[0]).logits, dim=-1)
    with torch.no_grad():
        theirs = functional.log_softmax(case.intact.model.eval()(**TEXT[0]).logits, dim=-1)
    assert count == Teaching(case).predictions(TEXT[0]) == 3
    torch.testing.assert_close(divergence, (theirs.exp() * (theirs - ours)).sum(), rtol=1e-4, atol=1e-7)
    assert torch.autograd.grad(divergence, next(case.pruned[0].parameters()))[0].abs().sum() > 0


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2"])
def test_the_loss_on_the_text_and_its_gradient(name: str) -> None:
    """Value and gradient as from whole logits: of the text's next tokens."""
    case = case_of(tiny(name), [1])
    weight = next(value for value in case.pruned[0].parameters() if value.ndim == 2)
    for inputs in TEXT:
        loss, count = Teaching(case).text(inputs)
        logits = case.pruned.model.eval()(**inputs).logits[:, :-1].log_softmax(-1)
        real = inputs["attention_mask"][:, 1:].bool()
        expected = -logits.gather(-1, inputs["input_ids"][:, 1:, None])[..., 0][real].sum()
        assert count == int(real.sum())
        torch.testing.assert_close(loss.detach(), expected.detach(), rtol=1e-4, atol=1e-6)
        (slope,), (aim,) = (torch.autograd.grad(each, weight) for each in (2 * loss, 2 * expected))
        torch.testing.assert_close(slope, aim, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("labelled", [True, False])
def test_the_loss_of_labels(labelled: bool) -> None:
    """A classifier's labels are the text's, or without them the predictions of the intact model."""
    case = case_of(classifier("bert"), [1, 2])
    with torch.no_grad():
        said = case.intact.model.eval()(**TEXT[0]).logits.argmax(-1)
    labels = 1 - said.clamp(max=1) if labelled else said
    loss, count = Teaching(case).text({**TEXT[0], "labels": labels} if labelled else TEXT[0])
    expected = functional.cross_entropy(case.pruned.model.eval()(**TEXT[0]).logits, labels, reduction="sum")
    assert count == 3
    torch.testing.assert_close(loss.detach(), expected.detach(), rtol=1e-4, atol=1e-6)
    slope, aim = (torch.autograd.grad(each, next(case.pruned[0].parameters()))[0] for each in (loss, expected))
    torch.testing.assert_close(slope, aim, rtol=1e-3, atol=1e-6)


def test_a_pupil_like_its_teacher_diverges_by_nothing() -> None:
    """The pruned model lacks only a block that adds nothing, so it equals the intact model."""
    model = tiny("llama")
    with torch.no_grad():
        for linear in (model.model.layers[2].self_attn.o_proj, model.model.layers[2].mlp.down_proj):
            linear.weight.zero_()
    teaching = Teaching(case_of(model, [2]))
    for inputs in TEXT:
        assert abs(teaching.divergence(inputs)[0].item()) < 1e-5
        ours, theirs = teaching.hidden(inputs)
        torch.testing.assert_close(ours, theirs)
        assert len(ours) == int(inputs["attention_mask"].sum()) - len(inputs["attention_mask"])
        for state, aim in teaching.streams(inputs):
            torch.testing.assert_close(state, aim)


@pytest.mark.parametrize(
    ("gone", "pairs"),
    [
        ([1], [(0, 1), (1, 2), (2, 3)]),
        ([0, 1], [(0, 2), (1, 3)]),
        ([3], [(2, 3)]),
        (["1/2"], [(0, 0), (1, 2), (2, 3)]),
    ],
)
def test_streams_are_compared_where_they_should_be_equal(gone: list[Step], pairs: list[tuple[int, int]]) -> None:
    """The stream after a kept block, against the input of the next kept block in the intact model."""
    case = case_of(tiny("llama"), gone)
    streams = Teaching(case).streams(TEXT[1])
    mask = TEXT[1]["attention_mask"].bool()
    assert len(streams) == len(pairs)
    for (here, there), (state, aim) in zip(pairs, streams, strict=True):
        for stack, index, stream in ((case.pruned, here, state), (case.intact, there, aim)):
            outputs: list[torch.Tensor] = []
            hook = stack[index].register_forward_hook(lambda *call, outputs=outputs: outputs.append(call[-1]))
            stack.model.eval()(**TEXT[1])
            hook.remove()
            torch.testing.assert_close(stream, outputs[0][mask])


def test_the_metric_of_a_head_is_its_curvature() -> None:
    """Estimated from draws, it is near the mean of W' (diag p - p p') W over the predictions."""
    case = case_of(tiny("llama"), [1])
    case.intact.model.lm_head.weight.data *= 20  # predictions that differ from one another
    text = [batch(8, 32, seed=seed) for seed in range(4)]
    metric = Teaching(case).head_metric(text)
    weight, total, count = case.intact.model.lm_head.weight.detach().double(), 0.0, 0
    for inputs in text:
        with torch.no_grad():
            for p in case.intact.model(**inputs).logits[:, :-1].flatten(0, 1).double().softmax(-1):
                total = total + weight.T @ (torch.diag(p) - torch.outer(p, p)) @ weight
                count += 1
    off = (metric.double() - total / count).norm() / (total / count).norm()
    assert off < 0.15
    assert torch.linalg.eigvalsh(metric.double()).min() > -1e-4


def test_nothing_is_left_on_the_models() -> None:
    case = case_of(tiny("llama"), [1])
    teaching = Teaching(case)
    teaching.streams(TEXT[0])
    assert not any(module._forward_hooks for stack in (case.intact, case.pruned) for module in stack.model.modules())
    assert all(parameter.grad is None for parameter in case.intact.model.parameters())

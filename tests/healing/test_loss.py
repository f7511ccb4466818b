"""The loss on held-out text, and whether it has clearly fallen."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.tiny import classifier, tiny

from layerimp.fidelity import Loss
from layerimp.healing.loss import HeldOutLoss
from layerimp.models.discovery import find_blocks
from layerimp.testing import batch, padded_batch


@pytest.mark.parametrize("made", [tiny("gpt2"), classifier("bert").float()], ids=["next-token", "label"])
def test_the_loss_is_that_of_the_model(made: Any) -> None:
    text = [batch(3, 9, seed=4), padded_batch((7, 4))]
    labels = [torch.tensor([0, 2, 1]), torch.tensor([1, 1])]
    labelled = made.config.architectures is None and hasattr(made, "classifier")
    if labelled:
        text = [unlabelled | {"labels": label} for unlabelled, label in zip(text, labels, strict=True)]
    stack = find_blocks(made)
    losses, count, hits = 0.0, 0, 0
    with torch.no_grad():
        for inputs in text:
            logits = made(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits.double()
            real = inputs["attention_mask"].bool()
            if labelled:
                terms = -logits.log_softmax(-1).gather(1, inputs["labels"][:, None])
                hits += int((logits.argmax(-1) == inputs["labels"]).sum())
            else:
                ids = inputs["input_ids"][:, 1:, None]
                terms = -logits[:, :-1].log_softmax(-1).gather(2, ids)[..., 0][real[:, 1:] & real[:, :-1]]
            losses, count = losses + float(terms.sum()), count + terms.numel()
    loss = HeldOutLoss(stack, text).of(stack)
    assert loss.mean == pytest.approx(losses / count, rel=1e-5)
    assert len(loss.totals) == 5
    assert loss.accuracy == (hits / 5 if labelled else None)


def test_a_gain_is_clear_by_a_paired_t_statistic() -> None:
    generator = torch.Generator().manual_seed(0)
    for seed in range(20):
        before = torch.rand(9, generator=generator).mul(5)
        after = before - 0.02 * (seed - 10) - 0.1 * torch.randn(9, generator=generator)
        plain = Loss(after.tolist(), [1] * 9)
        statistic = float((before - after).mean() / (before - after).std() * 3)
        gain, error = plain.gain_over(Loss(before.tolist(), [1] * 9))
        assert gain / error == pytest.approx(statistic, rel=1e-4)
        assert plain.is_clearly_below(Loss(before.tolist(), [1] * 9)) == (statistic > 1)
    assert Loss([3.0], [4]).is_clearly_below(Loss([3.1], [4]))  # a single row has no error
    assert Loss([3.0, 6.0], [1, 2]).gain_over(Loss([4.0, 8.0], [1, 2])) == (1.0, 0.0)  # longer rows gain more

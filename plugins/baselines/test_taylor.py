"""Taylor importance against a naive loop over batches and parameters, and its invariants."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support.tiny import EXPERTS, classifier, shut, tiny
from torch.nn.functional import cross_entropy

import layerimp
from layerimp.testing import batch, padded_batch

Batch = dict[str, torch.Tensor]


def score(model: Any, batches: list[Batch]) -> list[float]:
    return layerimp.score(model, batches, ["taylor"])["taylor"].scores


def naive(model: Any, batches: list[Batch]) -> list[float]:
    """Autograd over all logits, all parameters taking gradients, which add up over the batches."""
    count = 0
    model.zero_grad()
    for inputs in batches:
        logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
        labels = inputs.get("labels")
        if logits.ndim == 3:
            labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)[:, 1:].flatten()
            logits = logits[:, :-1].flatten(0, 1)
        cross_entropy(logits, labels, reduction="sum", ignore_index=-100).backward()
        count += int((labels != -100).sum())
    totals = [
        sum(float((p.detach() * p.grad).abs().sum()) for p in block.parameters() if p.ndim >= 2 and p.grad is not None)
        for block in layerimp.find_blocks(model)
    ]
    model.zero_grad()
    return [total / count for total in totals]


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "falcon", "qwen3_moe", "olmo2"])
def test_equals_a_naive_loop(architecture: str) -> None:
    experts = architecture in EXPERTS  # three dimensions, and no kernel for float64
    model = tiny(architecture, dtype=torch.float32 if experts else torch.float64)
    batches = [batch(3, 12, seed=1), padded_batch((12, 5, 9), seed=2)]
    np.testing.assert_allclose(score(model, batches), naive(model, batches), rtol=1e-4 if experts else 1e-9)


@pytest.mark.parametrize("architecture", ["bert", "distilbert"])
def test_classifiers(architecture: str) -> None:
    model, batches = classifier(architecture), [batch(3, 12), batch(2, 7, seed=1)]
    batches[0]["labels"], batches[1]["labels"] = torch.tensor([2, 0, 1]), torch.tensor([1, 1])
    np.testing.assert_allclose(score(model, batches), naive(model, batches), rtol=1e-9)


def test_the_magnitude_is_taken_last() -> None:
    """The gradients of two texts cancel in part, which magnitudes batch by batch would not."""
    model, batches = tiny("llama", dtype=torch.float64), [batch(1, 12), batch(1, 12, seed=1)]
    apart = np.mean([score(model, [inputs]) for inputs in batches], axis=0)
    assert (np.array(score(model, batches)) < 0.99 * apart).all()


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox", "gemma3_text"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_identity_block_scores_exactly_0(architecture: str, dtype: torch.dtype) -> None:
    scores = score(shut(tiny(architecture, dtype=dtype), 2), [batch()])
    assert scores[2] == 0
    assert min(scores[:2] + scores[3:]) > 0


def test_sums_are_not_rounded_to_half_precision() -> None:
    """A gradient that comes sixteen times over is the same mean; in bfloat16 alone the sum would drift."""
    model, inputs = tiny("llama", dtype=torch.bfloat16), batch()
    np.testing.assert_allclose(score(model, [inputs] * 16), score(model, [inputs]), rtol=1e-5)

"""Leave one out, against models whose blocks are removed for real, and its invariants."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from layerimp_baselines import Perplexity
from support.tiny import classifier, shut, tiny
from torch.nn.functional import cross_entropy

import layerimp
from layerimp.registry.catalog import registry
from layerimp.scoring.engine import measure
from layerimp.surgery.removal import pruned
from layerimp.testing import BLOCKS, batch, padded_batch


def score(model: Any, batches: list[Any]) -> Any:
    return layerimp.score(model, batches, ["perplexity"])["perplexity"]


def loss(model: Any, batches: list[dict[str, torch.Tensor]]) -> float:
    """Per target, in nats."""
    total, count = 0.0, 0
    for inputs in batches:
        with torch.no_grad():
            logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
        labels = inputs.get("labels")
        if labels is None:
            labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)[:, 1:].flatten()
            logits = logits[:, :-1].flatten(0, 1)
        total += float(cross_entropy(logits, labels, ignore_index=-100, reduction="sum"))
        count += int((labels != -100).sum())
    return total / count


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox", "gemma3_text"])
def test_it_is_the_loss_of_the_model_without_the_block(architecture: str) -> None:
    model, batches = tiny(architecture, dtype=torch.float64), [padded_batch((12, 5, 9)), batch(2, 7, seed=1)]
    importance, intact = score(model, batches), loss(model, batches)
    for block in range(BLOCKS):
        with pruned(model, [block]):
            without = loss(model, batches)
        assert importance.scores[block] == pytest.approx(without - intact, abs=1e-9)
        assert importance.columns["perplexity_without"][block] == pytest.approx(math.exp(without), rel=1e-9)
    said = f"perplexity of the intact model: {math.exp(intact):.6g} ({intact:.4g} nats per target)"
    assert list(importance.notes) == [said]


@pytest.mark.parametrize("architecture", ["bert", "distilbert", "llama", "gpt2"])
@pytest.mark.parametrize("labelled", [True, False])
def test_classifiers_with_labels_or_their_own(architecture: str, labelled: bool) -> None:
    model, inputs = classifier(architecture), padded_batch()
    own = model(**inputs).logits.argmax(dim=-1)
    known = inputs | {"labels": torch.tensor([2, 0, 1]) if labelled else own}
    importance, intact = score(model, [known if labelled else inputs]), loss(model, [known])
    for block in range(BLOCKS):
        with pruned(model, [block]):
            assert importance.scores[block] == pytest.approx(loss(model, [known]) - intact, abs=1e-9)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox", "gemma3_text"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_identity_block_scores_exactly_0(architecture: str, dtype: torch.dtype) -> None:
    importance = score(shut(tiny(architecture, dtype=dtype), 2), [padded_batch()])
    assert importance.scores[2] == 0
    assert all(importance.scores[:2] + importance.scores[3:])


def test_bypassed_blocks_are_as_if_removed() -> None:
    model, inputs = tiny("llama", dtype=torch.float64), padded_batch()
    past = measure(layerimp.find_blocks(model), [inputs], {"p": Perplexity(BLOCKS - 1)}, removed=[1])["p"]
    assert past.blocks == [0, 2, 3]
    with pruned(model, [1]):
        assert past.scores == pytest.approx(score(model, [inputs]).scores, rel=1e-9)


@pytest.mark.parametrize("name", ["perplexity", "gbis", "taylor", "cim"])
def test_a_classifier_without_labels_is_measured_by_the_intact_models_predictions(name: str) -> None:
    model, inputs = classifier("bert", dtype=torch.float64), batch(16, 12)
    with torch.no_grad():
        model.classifier.bias -= model(**inputs).logits.mean(dim=0)  # so that it does not predict one class
        labels = model(**inputs).logits.argmax(-1)
    stack = layerimp.find_blocks(model)

    def scored(batch: Any) -> list[float]:
        scorer = registry().create("scorer", name, {}, BLOCKS - 2)
        return measure(stack, [batch], {"s": scorer}, removed=[1, 2])["s"].scores

    with pruned(model, [1, 2]):
        assert not torch.equal(model(**inputs).logits.argmax(-1), labels), "what is left predicts something else"
    assert scored(inputs) == pytest.approx(scored({**inputs, "labels": labels}), rel=1e-9)

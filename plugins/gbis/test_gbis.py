"""GBIS against plain autograd over all logits, and against what it claims about the loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from layerimp_gbis import GBIS, GBISConfig
from support.states import states
from support.tiny import classifier, shut, tiny

import layerimp
from layerimp.blocks.forward import block_input, hidden_states, with_hidden
from layerimp.scorer import Importance
from layerimp.testing import BLOCKS, Check, batch, padded_batch, parametrize

VARIANTS: list[Any] = ["grad_x_delta", "grad_norm", "grad_x_act"]
Batch = dict[str, torch.Tensor]


@parametrize(*(GBIS(BLOCKS, GBISConfig(variant=variant)) for variant in VARIANTS[1:]))
def test_contract(check: Check) -> None:
    check()


def score(model: Any, batches: list[Batch], variant: Any = "grad_x_delta") -> Importance:
    return layerimp.score(model, batches, [GBIS(BLOCKS, GBISConfig(variant=variant))])["gbis"]


def losses(model: Any, inputs: Batch) -> torch.Tensor:
    """The negative log-likelihood of each next token, or of each label or own prediction [target]."""
    logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits.log_softmax(-1)
    if logits.ndim == 3:
        real = inputs["attention_mask"].bool()[:, 1:]
        logits, ids = logits[:, :-1][real], inputs["input_ids"][:, 1:][real]
    else:
        ids = inputs["labels"] if "labels" in inputs else logits.argmax(-1)
    return -logits[range(len(ids)), ids]


def naive(model: Any, batches: list[Batch], variant: str) -> list[float]:
    """Term by term, per row and token, from the hidden states of a Llama."""
    totals, count = [0.0] * BLOCKS, 0
    for inputs in batches:
        with states(model) as stream:
            values = losses(model, inputs)
        count += len(values)
        at_ends = [*(stream["block_in", block] for block in range(BLOCKS)), stream["block_out", BLOCKS - 1]]
        gradients = torch.autograd.grad(values.sum(), at_ends)
        h = [state.detach().numpy() for state in at_ends]
        g = [gradient.numpy() for gradient in gradients]
        for block in range(BLOCKS):
            for row, token in inputs["attention_mask"].nonzero().tolist():
                at = (row, token)
                if variant == "grad_x_delta":
                    totals[block] += np.abs((h[block + 1][at] - h[block][at]) * g[block + 1][at]).sum()
                elif variant == "grad_norm":
                    totals[block] += np.linalg.norm(g[block][at])
                else:
                    totals[block] += np.abs(h[block][at] * g[block][at]).sum()
    return [total / count for total in totals]


@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_a_naive_computation(variant: str) -> None:
    model, batches = tiny("llama", dtype=torch.float64), [batch(3, 12, seed=1), padded_batch((12, 5, 9), seed=2)]
    importance = score(model, batches, variant)
    np.testing.assert_allclose(importance.scores, naive(model, batches, variant), rtol=1e-9)
    assert importance.columns.keys() == ({"slope"} if variant == "grad_x_delta" else set())


def mean_loss(model: Any, batches: list[Batch], block: int, alpha: float) -> float:
    """The loss per target where one block puts out h + alpha x D. (Norms compute in float32 always.)"""

    def scaled(_m: Any, args: Any, kwargs: Any, output: Any) -> Any:
        before = block_input(args, kwargs)
        return with_hidden(output, before + alpha * (hidden_states(output) - before))

    hook = layerimp.find_blocks(model)[block].register_forward_hook(scaled, with_kwargs=True)
    with torch.no_grad():
        values = torch.cat([losses(model, inputs) for inputs in batches])
    hook.remove()
    return float(values.mean())


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox", "gemma3_text", "falcon", "olmo2", "bert"])
def test_the_signed_sum_is_the_slope_of_the_loss(architecture: str) -> None:
    model = (classifier if architecture == "bert" else tiny)(architecture, dtype=torch.float64)
    batches, step = [padded_batch((12, 5, 9)), padded_batch((4, 8), seed=1)], 1e-2
    for index, inputs in enumerate(batches):
        inputs["labels"] = torch.arange(len(inputs["input_ids"])) + index
    slopes = score(model, batches).columns["slope"]
    for block in range(BLOCKS):
        two_down, down, up, two_up = (mean_loss(model, batches, block, 1 + at * step) for at in (-2, -1, 1, 2))
        assert slopes[block] == pytest.approx((two_down - 8 * down + 8 * up - two_up) / (12 * step), abs=1e-5)


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("architecture", ["distilbert", "roberta", "gpt2"])
def test_classifiers_with_and_without_labels(architecture: str, labelled: bool) -> None:
    model = classifier(architecture)
    inputs = padded_batch()
    own = torch.cat(
        [
            model(input_ids=ids[None, :n]).logits.argmax(-1)
            for ids, n in zip(inputs["input_ids"], (12, 5, 9), strict=True)
        ]
    )
    labels = (own + 1) % 3 if labelled else own
    given = inputs | {"labels": labels}
    expected = score(model, [given])
    importance = score(model, [given if labelled else inputs])
    assert importance == expected
    assert importance != score(model, [inputs | {"labels": (labels + 1) % 3}])


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox", "gemma3_text"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_identity_block_scores_exactly_0(architecture: str, dtype: torch.dtype) -> None:
    scores = score(shut(tiny(architecture, dtype=dtype), 2), [batch()]).scores
    assert scores[2] == 0
    assert min(scores[:2] + scores[3:]) > 0


def test_only_what_a_block_adds_tells_an_identity_block() -> None:
    claims = {variant: GBIS(BLOCKS, GBISConfig(variant=variant)).identity_scores_least for variant in VARIANTS}
    assert claims == {"grad_x_delta": True, "grad_norm": False, "grad_x_act": False}
    model = shut(tiny("llama"), 2)
    for variant in ("grad_norm", "grad_x_act"):
        assert score(model, [batch()], variant).scores[2] > 0


def test_half_precision_is_close() -> None:
    exact = score(tiny("llama"), [padded_batch()]).scores
    np.testing.assert_allclose(score(tiny("llama", dtype=torch.bfloat16), [padded_batch()]).scores, exact, rtol=0.1)

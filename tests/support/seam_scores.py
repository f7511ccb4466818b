"""Scores of blocks and seams of tiny models, and the values that they are compared with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from layerimp_avss import AVSS
from layerimp_baselines import Angular, BlockInfluence, Depth, Perplexity, Random, RelativeMagnitude, Taylor
from layerimp_cim import CIM
from layerimp_gbis import GBIS
from layerimp_lrp import LRP
from support.scored_by_hand import ARCHITECTURES, states, written_out
from torch import Tensor

import layerimp
from layerimp.scorer import Importance, Scorer
from layerimp.scoring.engine import measure
from layerimp.steps import Step, candidates, sublayers_of
from layerimp.testing import BLOCKS, batch, padded_batch

Batch = dict[str, Tensor]
BOTH = 2 * BLOCKS - 1
"""The numbers of blocks and seams."""


def text() -> list[Batch]:
    """Two batches, of which one is padded."""
    return [padded_batch((12, 5, 9)), batch(2, 7, seed=1)]


def made(cls: type[Scorer], num_blocks: int, options: Mapping[str, Any]) -> Scorer:
    return cls(num_blocks, cls.Config(**options))


def scored(
    model: Any, cls: type[Scorer], batches: list[Batch] | None = None, removed: tuple[Step, ...] = (), **options: Any
) -> Importance:
    """The blocks and the seams of a model in one pass."""
    blocks, seams = candidates(removed, BLOCKS, "all")
    stack, label = layerimp.find_blocks(model), cls.name
    return measure(
        stack,
        batches or text(),
        {label: made(cls, len(blocks), options)},
        beside={label: made(cls, len(seams), options)},
        removed=removed,
    )[label]


def places(importance: Importance, num_blocks: int = BLOCKS) -> list[tuple[int, int]]:
    """The numbers of the sublayers at which each step of an intact model begins and ends."""
    parts = [sublayers_of(step) for step in importance.blocks]
    assert len(parts) == 2 * num_blocks - 1
    return [(part[0].depth, part[-1].depth + 1) for part in parts]


def rows(model: Any, architecture: str, batches: list[Batch]) -> list[Tensor]:
    """The residual stream [token, hidden] before each sublayer, over the whole set, without padding."""
    streams = [
        [state[inputs["attention_mask"].bool()] for state in states(model, architecture, inputs)] for inputs in batches
    ]
    return [torch.cat(parts) for parts in zip(*streams, strict=True)]


def nll(model: Any, inputs: Batch) -> Tensor:
    """The negative log-likelihood [target] of the next tokens, or of the predicted class."""
    logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
    if logits.ndim == 3:
        real = inputs["attention_mask"].bool()[:, 1:]
        logits, ids = logits[:, :-1][real], inputs["input_ids"][:, 1:][real]
    else:
        ids = logits.argmax(-1)
    return -logits.log_softmax(-1)[range(len(ids)), ids]


architectures = pytest.mark.parametrize("architecture", ARCHITECTURES)


def close(scores: list[float], expected: list[Any]) -> None:
    torch.testing.assert_close(
        torch.tensor(scores, dtype=torch.float64),
        torch.stack([torch.as_tensor(value, dtype=torch.float64) for value in expected]),
        rtol=1e-8,
        atol=1e-10,
    )


def gradients(model: Any, architecture: str, inputs: Batch) -> tuple[list[Tensor], list[Tensor], int]:
    """The stream before each sublayer, and the gradient of the loss there, on real tokens; and how many targets."""
    with written_out(model, architecture) as stream, torch.enable_grad():
        loss = nll(model, inputs)
        order = sorted(stream.at)
        slopes = torch.autograd.grad(loss.sum(), [stream.at[place] for place in order])
    real = inputs["attention_mask"].bool()
    return [stream.at[place].detach()[real] for place in order], [slope[real] for slope in slopes], len(loss)


def without(model: Any, architecture: str, begin: int, end: int, factor: float | Tensor, inputs: Batch) -> Tensor:
    """The loss if what is added between two places is multiplied by a factor, or replaced."""
    with written_out(model, architecture) as stream, torch.no_grad():

        def change(state: Tensor) -> Tensor:
            added = factor if isinstance(factor, Tensor) else factor * (state - stream.at[begin])
            return stream.at[begin] + added

        stream.changes[end] = change
        return nll(model, inputs)


EVERY: dict[str, tuple[type[Scorer], dict[str, Any]]] = {
    "avss": (AVSS, {"site": "block_delta"}),
    "paper": (AVSS, {"variant": "paper"}),
    "block-influence": (BlockInfluence, {}),
    "angular": (Angular, {"window": 2}),
    "relative-magnitude": (RelativeMagnitude, {}),
    "gbis": (GBIS, {}),
    "taylor": (Taylor, {}),
    "lrp": (LRP, {}),
    "perplexity": (Perplexity, {}),
    "cim": (CIM, {}),
    "depth": (Depth, {}),
    "random": (Random, {}),
}


def all_of(num_blocks: int) -> dict[str, Scorer]:
    """Every scorer of `EVERY`, for a number of blocks or seams."""
    return {label: made(cls, num_blocks, options) for label, (cls, options) in EVERY.items()}

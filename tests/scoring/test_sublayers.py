"""Attention and MLP, scored separately."""

from __future__ import annotations

import pytest
import torch
from layerimp_avss import AVSS
from layerimp_baselines import Angular, BlockInfluence, Random
from support.scored_by_hand import SILENT
from support.seam_scores import (
    all_of,
    architectures,
    close,
    gradients,
    made,
    nll,
    rows,
    text,
    without,
)
from support.tiny import tiny
from torch import nn
from torch.nn.functional import cosine_similarity

import layerimp
from layerimp.errors import ModelError
from layerimp.scoring.engine import measure
from layerimp.testing import BLOCKS


@pytest.mark.parametrize("silent", [0, 1])
@pytest.mark.parametrize("architecture", SILENT)
def test_a_model_with_a_silent_half_is_divided(architecture: str, silent: int) -> None:
    """If the halves of the first block cannot be found, another block of the same structure shows them."""
    model = tiny(architecture, dtype=torch.float64)
    path = SILENT[architecture][silent]
    for parameter in layerimp.find_blocks(model)[0].get_submodule(path).parameters():
        nn.init.zeros_(parameter)
    importance = measure(
        layerimp.find_blocks(model),
        text(),
        {"b": BlockInfluence(BLOCKS)},
        beside={"b": BlockInfluence(BLOCKS)},
        units="sublayers",
    )["b"]
    assert [step for step, score in zip(importance.blocks, importance.scores, strict=True) if score == 0] == [
        ("0.attn", "0.mlp")[silent]
    ]


@architectures
def test_attention_and_mlp_apart(architecture: str) -> None:
    model = tiny(architecture, dtype=torch.float64)
    stack, at = layerimp.find_blocks(model), rows(model, architecture, text())
    labels = ["block-influence", "relative-magnitude", "gbis", "lrp", "cim", "perplexity", "avss"]
    attention, mlp = ({label: all_of(BLOCKS)[label] for label in labels} for _ in range(2))
    results = measure(stack, text(), attention, beside=mlp, units="sublayers")
    for importance in results.values():
        assert importance.blocks == [f"{block}.{part}" for block in range(BLOCKS) for part in ("attn", "mlp")]
    ends = [(place, place + 1) for place in range(2 * BLOCKS)]
    close(results["block-influence"].scores, [(1 - cosine_similarity(at[a], at[b])).mean() for a, b in ends])
    if architecture != "bert":
        with torch.no_grad():
            intact = torch.cat([nll(model, inputs) for inputs in text()]).mean()
        close(
            results["perplexity"].scores,
            [
                torch.cat([without(model, architecture, a, b, 0, inputs) for inputs in text()]).mean() - intact
                for a, b in ends
            ],
        )
    total, count = torch.zeros(2 * BLOCKS, dtype=torch.float64), 0
    for inputs in text():
        states, slopes, targets = gradients(model, architecture, inputs)
        count += targets
        total += torch.stack([((states[b] - states[a]) * slopes[b]).abs().sum() for a, b in ends])
    close(results["gbis"].scores, list(total / count))


def test_what_is_not_in_a_sublayer_is_refused() -> None:
    stack = layerimp.find_blocks(tiny("llama"))
    for cls, options, said in (
        (AVSS, {}, r"scorer 'x' cannot score attention and MLP apart: it reads mlp_act, which an attention or an MLP"),
        (Angular, {"window": 2}, "several neighbours"),
        (Random, {}, "it looks at nothing"),
    ):
        attention, mlp = ({"x": made(cls, BLOCKS, options)} for _ in range(2))
        with pytest.raises(ModelError, match=said):
            measure(stack, text(), attention, beside=mlp, units="sublayers")

"""Seams, by scorers that read gradients, against what is computed by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from layerimp_baselines import Taylor
from layerimp_gbis import GBIS
from layerimp_lrp import LRP, Relevance
from support.scored_by_hand import SILENT, written_out
from support.seam_scores import (
    BOTH,
    architectures,
    close,
    gradients,
    nll,
    places,
    scored,
    text,
    without,
)
from support.tiny import tiny

import layerimp
from layerimp.scoring.engine import measure
from layerimp.testing import BLOCKS


@architectures
@pytest.mark.parametrize("variant", ["grad_x_delta", "grad_norm", "grad_x_act"])
def test_gradients_between_the_halves(architecture: str, variant: Any) -> None:
    model = tiny(architecture, dtype=torch.float64)
    importance = scored(model, GBIS, variant=variant)
    totals, count = torch.zeros(BOTH, dtype=torch.float64), 0
    slopes = torch.zeros(BOTH, dtype=torch.float64)
    for inputs in text():
        at, slope, targets = gradients(model, architecture, inputs)
        count += targets
        for index, (a, b) in enumerate(places(importance)):
            values = {
                "grad_x_delta": (at[b] - at[a]) * slope[b],
                "grad_norm": slope[a].norm(dim=-1),
                "grad_x_act": at[a] * slope[a],
            }[variant]
            totals[index] += values.abs().sum()
            slopes[index] += values.sum()
    close(importance.scores, list(totals / count))
    if variant == "grad_x_delta":
        close(importance.columns["slope"], list(slopes / count))


@architectures
def test_weights_of_the_two_halves(architecture: str) -> None:
    """A seam has the weights of an MLP and of the next attention; each weight counts once in either series."""
    model = tiny(architecture, dtype=torch.float64)
    losses = torch.cat([nll(model, inputs) for inputs in text()])
    losses.sum().backward()

    def of(depth: int) -> float:
        block, mlp = layerimp.find_blocks(model)[depth // 2], depth % 2
        names = {"gpt2": "mlp.", "bert": ("intermediate.", "output.")}.get(architecture, "mlp.")
        return sum(
            float((p.detach() * p.grad).abs().sum())
            for name, p in block.named_parameters()
            if p.ndim > 1 and name.startswith(names) == bool(mlp)
        )

    weights = [of(depth) / len(losses) for depth in range(2 * BLOCKS)]
    model.zero_grad()
    importance = scored(model, Taylor)
    close(importance.scores, [weights[a] + weights[b - 1] for a, b in places(importance)])
    halves = {"taylor": Taylor(BLOCKS)}, {"taylor": Taylor(BLOCKS)}
    close(
        measure(layerimp.find_blocks(model), text(), halves[0], beside=halves[1], units="sublayers")["taylor"].scores,
        weights,
    )


@architectures
def test_relevance_between_the_halves(architecture: str) -> None:
    """The rules are those of the scorer; the stream and its gradient are read by hand."""
    model = tiny(architecture, dtype=torch.float64).requires_grad_(False)
    stack, importance = layerimp.find_blocks(model), scored(model, LRP)
    totals, logits = torch.zeros(BOTH, dtype=torch.float64), 0.0
    for inputs in text():
        with written_out(model, architecture) as stream, torch.enable_grad(), Relevance().rules(stack):
            stream.changes[0] = lambda state: state.detach().requires_grad_()
            out = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
            if out.ndim == 3:
                real = inputs["attention_mask"].bool()[:, 1:]
                own = out[:, :-1].gather(-1, inputs["input_ids"][:, 1:, None])[..., 0][real]
            else:
                own = out.amax(dim=-1)
            order = sorted(stream.at)
            slopes = torch.autograd.grad(own.sum(), [stream.at[place] for place in order])
        logits += float(own.detach().abs().sum())
        mask = inputs["attention_mask"].bool()
        for index, (a, b) in enumerate(places(importance)):
            step = stream.at[b].detach() - stream.at[a].detach()
            totals[index] += (step * slopes[b])[mask].abs().sum()
    close(importance.scores, list(totals / logits))
    assert importance.notes == ()


@pytest.mark.parametrize(
    "architecture", ["llama", "gpt2", "opt", "bert", "distilbert", "gemma3_text", "bloom", "mixtral"]
)
def test_relevance_is_conserved_inside_blocks(architecture: str) -> None:
    model = tiny(architecture, dtype=torch.float32 if architecture == "mixtral" else torch.float64)
    stack, seams = layerimp.find_blocks(model), LRP(BLOCKS - 1)
    measure(stack, text(), {"lrp": LRP(BLOCKS)}, beside={"lrp": seams})
    allowed = {"bloom": 0.1, "mixtral": 1e-4}.get(architecture, 1e-7)  # RMS norms compute in float32
    assert max(seams.missing()) < allowed
    halves = {"lrp": LRP(BLOCKS)}, {"lrp": LRP(BLOCKS)}
    measure(stack, text(), halves[0], beside=halves[1], units="sublayers")
    assert max(max(half["lrp"].missing()) for half in halves) < allowed


@pytest.mark.parametrize("architecture", SILENT)
def test_a_loss_moves_as_its_slope_says(architecture: str) -> None:
    """By central differences: the signed sum of GBIS at a seam is the slope of the loss in what the seam adds."""
    model = tiny(architecture, dtype=torch.float64)
    importance = scored(model, GBIS)
    for index, (a, b) in enumerate(places(importance)):
        up, down = (
            torch.cat([without(model, architecture, a, b, 1 + step, inputs) for inputs in text()]).mean()
            for step in (1e-3, -1e-3)  # RMS norms compute in float32
        )
        slope = float((up - down) / 2e-3)
        assert importance.columns["slope"][index] == pytest.approx(slope, rel=1e-3, abs=1e-5)

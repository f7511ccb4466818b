"""Seams, by scorers that change a step and read the prediction, against computations by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from layerimp_baselines import Perplexity
from layerimp_cim import CIM
from layerimp_gbis import GBIS
from support.seam_scores import (
    close,
    nll,
    places,
    rows,
    scored,
    text,
    without,
)
from support.tiny import ALL, ENCODERS, EXPERTS, PARALLEL, each_of, tiny
from torch import Tensor

import layerimp
from layerimp.scorer import Importance, Scorer
from layerimp.scoring.engine import measure
from layerimp.stats import Mean
from layerimp.surgery.removal import pruned
from layerimp.sweep import Ablation, Trace
from layerimp.testing import BLOCKS, batch, padded_batch


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "gpt2"])
def test_seams_are_left_out(architecture: str) -> None:
    model = tiny(architecture, dtype=torch.float64)
    importance = scored(model, Perplexity)
    with torch.no_grad():
        intact = torch.cat([nll(model, inputs) for inputs in text()]).mean()
    expected = [
        torch.cat([without(model, architecture, a, b, 0, inputs) for inputs in text()]).mean() - intact
        for a, b in places(importance)
    ]
    close(importance.scores, expected)
    for step, score in zip(importance.blocks, importance.scores, strict=True):  # and as surgery leaves them out
        with pruned(model, [step]), torch.no_grad():
            close([score], [torch.cat([nll(model, inputs) for inputs in text()]).mean() - intact])


@pytest.mark.parametrize("architecture", ["bert", "distilbert"])
def test_an_encoder_s_seams_are_left_out(architecture: str) -> None:
    model = tiny(architecture, dtype=torch.float64)
    labels = torch.tensor([0, 1, 0])
    inputs = padded_batch((12, 5, 9)) | {"labels": labels}
    importance = scored(model, Perplexity, [inputs])

    def loss() -> Tensor:
        with torch.no_grad():
            logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
        return -logits.log_softmax(-1)[range(3), labels].mean()

    intact = loss()
    for step, score in zip(importance.blocks, importance.scores, strict=True):
        with pruned(model, [step]):
            close([score], [loss() - intact])


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "gpt2"])
def test_probes_of_seams(architecture: str) -> None:
    model = tiny(architecture, dtype=torch.float64)
    importance = scored(model, CIM)
    at = rows(model, architecture, text())
    for index, (a, b) in enumerate(places(importance)):
        mean = (at[b] - at[a]).mean(dim=0)
        values = torch.stack(
            [
                torch.cat([-without(model, architecture, a, b, probe, inputs) for inputs in text()]).exp()
                for probe in (0.0, 0.5, 1.0, mean)
            ]
        )
        close([importance.scores[index]], [(values.amax(dim=0) - values.amin(dim=0)).mean()])


def test_blocks_before_the_changed_seam_are_not_run_again() -> None:
    """They return stored outputs; the block where the seam ends runs, with an attention that adds nothing."""
    model, inputs = tiny("llama"), batch(3, 12)
    calls: list[tuple[str, int]] = []
    for index, block in enumerate(model.model.layers):
        for name, module in (("attn", block.self_attn.o_proj), ("mlp", block.mlp.down_proj)):
            module.register_forward_hook(
                lambda _m, args, _out, call=(name, index): calls.append(call) if len(args[0]) == 3 else None
            )
    scored(model, Perplexity, [inputs])
    # All blocks once; after block b the later blocks; after the seam b/b+1 block b + 1 and the later blocks.
    for index in range(BLOCKS):
        assert calls.count(("attn", index)) == 1 + index + index
        assert calls.count(("mlp", index)) == 1 + index + index


@pytest.mark.parametrize("architecture", each_of(sorted(ALL.keys() - PARALLEL)))
def test_two_sweeps_agree_between_the_halves(architecture: str) -> None:
    """In every architecture: the slope of the loss, from its gradient and from two changes of what a seam adds."""
    single = architecture in EXPERTS
    model = tiny(architecture, dtype=torch.float32 if single else torch.float64)
    batches = [batch(3, 12) | ({"labels": torch.tensor([0, 1, 1])} if architecture in ENCODERS else {})]
    importance = scored(model, GBIS, batches)
    step = 1e-6 if architecture == "opt" else 1e-3  # a rectifier has kinks; RMS norms compute in float32
    seams = Slope(BLOCKS - 1, step=step)
    measure(layerimp.find_blocks(model), batches, {"slope": Slope(BLOCKS, step=step)}, beside={"slope": seams})
    expected = torch.tensor(importance.columns["slope"][1::2], dtype=torch.float64)
    torch.testing.assert_close(
        seams.slope.value(), expected, rtol=0.02 if single else 2e-3, atol=1e-3 if single else 1e-5
    )


class Slope(Scorer):
    """Central differences of the loss in the factor on what a block adds."""

    name = "slope"

    def __init__(self, num_blocks: int, config: Any = None, step: float = 1e-3) -> None:
        super().__init__(num_blocks, config)
        self.sweep = Ablation(frozenset({1 - step, 1 + step}))
        self.less, self.more = (Ablation.site(factor) for factor in (1 - step, 1 + step))
        self.observes = frozenset({self.less, self.more})
        self.step, self.slope = step, Mean(num_blocks)

    def update(self, trace: Trace) -> None:
        less, more = (trace.rows(site).double() for site in (self.less, self.more))
        self.slope.add(trace.block, (less - more) / (2 * self.step))

    def compute(self) -> Importance:
        return Importance(scores=self.slope.value().tolist())

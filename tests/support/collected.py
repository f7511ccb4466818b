"""A scorer that keeps everything in its traces."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

import layerimp
from layerimp.scorer import Importance, Scorer
from layerimp.scoring.engine import measure
from layerimp.sweep import Backward, Trace
from layerimp.testing import BLOCKS

Batch = dict[str, torch.Tensor]


class Collect(Scorer):
    """Keeps copies of everything in its traces, in the order of arrival."""

    name = "collect"
    observes = Backward.SITES

    def __init__(self, num_blocks: int, sweep: Backward) -> None:
        super().__init__(num_blocks)
        self.sweep = sweep
        self.traces: list[Trace] = []

    def update(self, trace: Trace) -> None:
        acts = {site: act.clone() for site, act in trace.acts.items()}
        gradients = {name: (p.clone(), g.clone()) for name, (p, g) in trace.gradients.items()}
        inputs = {at: act.clone() for at, act in trace.inputs.items()}
        self.traces.append(replace(trace, acts=acts, inputs=inputs, gradients=gradients))

    def compute(self) -> Importance:
        return Importance(scores=[0.0] * self.num_blocks)


def collect(model: Any, batches: list[Batch], sweep: Backward | None = None, removed: tuple[int, ...] = ()) -> Any:
    """The traces of a sweep, by default of the gradient sweep."""
    scorer = Collect(BLOCKS - len(removed), sweep or Backward())
    measure(layerimp.find_blocks(model), batches, {"collect": scorer}, removed=removed)
    return scorer.traces

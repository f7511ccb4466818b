"""Records what a scorer is shown, and shows it again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from layerimp.scorer import Importance, Scorer
from layerimp.sweep import Trace


class Recorder(Scorer):
    """Keeps copies of the traces that another scorer would see."""

    name = "recorder"

    def __init__(self, scorer: Scorer) -> None:
        super().__init__(scorer.num_blocks)
        self.sweep, self.observes, self.lookback = scorer.sweep, scorer.observes, scorer.lookback
        self.batches: tuple[list[Trace], list[Trace]] = [], []

    def update(self, trace: Trace) -> None:
        """Keep a copy."""
        self.batches[trace.batch].append(copied(trace))

    def merge(self, other: Recorder) -> None:
        """Fail: records are not merged."""
        raise NotImplementedError

    def compute(self) -> Importance:
        """Return scores of 0."""
        return Importance(scores=[0.0] * self.num_blocks)


def replay(scorer: Scorer, batches: Sequence[Sequence[Trace]], update: Callable[[Trace], None] | None = None) -> None:
    """Show a scorer the recorded traces, each time as new copies."""
    with torch.no_grad():
        for batch in batches:
            for trace in batch:
                (update or (lambda shown: scorer.update(copied(shown))))(trace)
        scorer.end_sweep()


def copied(trace: Trace) -> Trace:
    """Return a trace with copies of its tensors."""
    return replace(
        trace,
        acts={site: act.detach().clone() for site, act in trace.acts.items()},
        mask=trace.mask.clone(),
        inputs={at: act.detach().clone() for at, act in trace.inputs.items()},
        targets=None if trace.targets is None else trace.targets.detach().clone(),
        extras={name: extra.detach().clone() for name, extra in trace.extras.items()},
        gradients={
            name: (weight.detach().clone(), gradient.detach().clone())
            for name, (weight, gradient) in trace.gradients.items()
        },
    )

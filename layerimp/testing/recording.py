"""Records what a scorer is shown, and shows it again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from layerimp.models.discovery import find_blocks
from layerimp.scorer import Importance, Scorer
from layerimp.scoring.engine import fill
from layerimp.sweep import Trace
from layerimp.testing.tiny import tiny_model

if TYPE_CHECKING:
    from layerimp.blocks.stack import Batch


def recorded(scorer: Scorer, batches: Sequence[Batch]) -> list[list[Trace]]:
    """Return copies of the traces of each batch that a scorer, which then computes nothing, is shown."""
    traces: list[list[Trace]] = [[] for _ in batches]
    nothing = Importance(scores=[0.0] * scorer.num_blocks)
    vars(scorer).update(
        update=lambda trace: traces[trace.batch].append(copied(trace)),
        end_sweep=lambda: None,
        compute=lambda: nothing,
    )
    fill(find_blocks(tiny_model(dtype=torch.float64)), batches, {scorer.name: scorer})
    return traces


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

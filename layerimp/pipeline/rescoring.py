"""What a pruner asks for scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from layerimp.scoring.engine import measure
from layerimp.steps import Step, Sublayer, kept_halves, step_of
from layerimp.sweep.cache import BlockCache

if TYPE_CHECKING:
    from layerimp.blocks.stack import BlockStack
    from layerimp.calibration.sampling import CalibrationSet
    from layerimp.progress import Progress
    from layerimp.pruner import Scoring
    from layerimp.scorer import Importance
    from layerimp.scoring.selection import Selection


def rescoring(
    stack: BlockStack,
    drawn: CalibrationSet,
    first: Importance,
    selection: Selection,
    label: str,
    progress: Progress,
) -> Scoring:
    """What a pruner asks for scores: the importance of what is left without the steps that it names."""
    cache = BlockCache(stack)

    def scoring(removed: Sequence[Step]) -> Importance:
        if not removed:
            return first
        scorers = selection.made(len(stack) - len(set(removed)), label)
        found = measure(stack, drawn, scorers, removed=removed, progress=progress, cache=cache)[label]
        return without_joined(found, removed, len(stack))

    return scoring


def without_joined(found: Importance, removed: Sequence[Step], num_blocks: int) -> Importance:
    """Scores without those of blocks that seams have joined from two: a budget protects these, and a pruner that
    chooses among blocks by their indices could not know that.
    """
    joined = {
        step_of((Sublayer(attention, "attn"), Sublayer(mlp, "mlp")))
        for attention, mlp in kept_halves(removed, num_blocks)
        if attention != mlp
    }
    kept = [row for row, step in enumerate(found.blocks) if step not in joined]
    if len(kept) == len(found.blocks):
        return found
    return replace(
        found,
        scores=[found.scores[row] for row in kept],
        blocks=[found.blocks[row] for row in kept],
        columns={name: [values[row] for row in kept] for name, values in found.columns.items()},
        spans={},
    )

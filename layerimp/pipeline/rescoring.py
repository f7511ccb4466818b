"""The scoring that a pruner calls for scores of a partly pruned model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from layerimp.pipeline.scores import scorers_of
from layerimp.scoring.engine import measure
from layerimp.steps import Cuts, Step, Sublayer, candidates, removed_by
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
    *,
    cuts: Cuts = "blocks",
    rows: int | None = None,
) -> Scoring:
    """Return the scoring for a pruner: it gives the importance of the steps that can be taken after given removals.

    Each set of removed steps is scored once, so that a longer plan costs only the scorings that are new.

    Args:
        stack: The blocks of the intact model.
        drawn: The text.
        first: The importance of the steps in the intact model.
        selection: The scorers.
        label: The scorer.
        progress: Where to report progress.
        cuts: What may be removed.
        rows: How many rows of the text to score on; None for all.
    """
    if rows is not None:
        drawn = drawn.first(rows)
    cache = BlockCache(stack)
    known = {frozenset[Sublayer](): first}

    def scoring(removed: Sequence[Step]) -> Importance:
        gone = removed_by(removed)
        if gone not in known:
            scorers, seams = scorers_of(candidates(removed, len(stack), cuts), selection, label)
            found = measure(
                stack, drawn, scorers, seams=seams, removed=removed, cuts=cuts, progress=progress, cache=cache
            )
            known[gone] = found[label]
        return known[gone]

    return scoring

"""Scores the units of a model: of the intact one, and for a pruner those of a partly pruned one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from layerimp.scoring.engine import fill, fill_sublayers, finished, measure
from layerimp.scoring.series import ScoredSeries
from layerimp.steps import Cuts, Step, Sublayer, candidates, removed_by, sublayer_units
from layerimp.sweep.cache import BlockCache

if TYPE_CHECKING:
    from layerimp.blocks.stack import BlockStack
    from layerimp.calibration.sampling import CalibrationSet
    from layerimp.pipeline.run import Run
    from layerimp.pruner import Scoring
    from layerimp.scorer import Importance, Kind, Scorer
    from layerimp.scoring.selection import Selection

Unit = Literal["block", "sublayer"]
"""The units to score: whole blocks (and seams, if these may be cut), or attention and MLP separately."""
Series = tuple[list[Step], list[Step]]
"""The scored units in two series: blocks and seams, or attentions and MLPs. The second series may be empty."""


def score_blocks(run: Run, by: Unit = "block") -> dict[str, Importance]:
    """Score blocks (and seams, if the recipe cuts them), or with `by` attention and MLP separately.

    All selected scorers share the sweeps. Scorers that fail leave the selection.

    Returns:
        The importance, by the scorer's label.
    """
    stack, selection, cuts = run.loaded.stack, run.selection, run.recipe.cuts
    apart = by == "sublayer"
    kind: Kind | None = "sublayer" if apart else "seam" if cuts == "all" else None
    selection.try_out(stack, next(iter(run.text)), kind)
    steps = sublayer_units((), len(stack)) if apart else candidates((), len(stack), cuts)
    first: dict[str, Scorer] = {}
    second: dict[str, Scorer] = {}
    for label in list(selection.specs):
        with selection.excusing(label):
            ours, theirs = scorers_of(steps, selection, label)
            ScoredSeries("", steps[1], theirs, kind).check()
            first |= ours
            second |= theirs
    if apart:
        seen = fill_sublayers(stack, run.text, first, second, progress=run.progress)
    else:
        seen = fill(stack, run.text, first, seams=second, progress=run.progress)
    importance: dict[str, Importance] = {}
    for label, filled in seen.items():
        with selection.excusing(label):
            importance[label] = finished(label, [filled])
    selection.need_any()
    return importance


def scorers_of(steps: Series, selection: Selection, *labels: str) -> tuple[dict[str, Scorer], dict[str, Scorer]]:
    """Make new scorers for both series: those with the given labels, or all."""
    first, second = steps
    return selection.create(len(first), *labels), selection.create(len(second), *labels) if second else {}


def rescoring(
    stack: BlockStack, text: CalibrationSet, first: Importance, selection: Selection, label: str, cuts: Cuts = "blocks"
) -> Scoring:
    """Return the scoring for a pruner: it gives the importance of the steps that can be taken after given removals.

    Each set of removed steps is scored once, so that a longer plan costs only the scorings that are new.

    Args:
        stack: The blocks of the intact model.
        text: The text to score on.
        first: The importance of the steps in the intact model.
        selection: The scorers, and where to report progress.
        label: The scorer.
        cuts: What may be removed.
    """
    cache = BlockCache(stack)
    known = {frozenset[Sublayer](): first}

    def scoring(removed: Sequence[Step]) -> Importance:
        key = removed_by(removed)
        if key not in known:
            scorers, seams = scorers_of(candidates(removed, len(stack), cuts), selection, label)
            importance = measure(
                stack, text, scorers, seams=seams, removed=removed, cuts=cuts, progress=selection.progress, cache=cache
            )
            known[key] = importance[label]
        return known[key]

    return scoring

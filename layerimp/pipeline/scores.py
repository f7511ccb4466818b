"""Scores the units of a model: of the intact one, and for a pruner those of a partly pruned one."""

from __future__ import annotations

from collections.abc import Collection, Hashable, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from layerimp.scoring.engine import fill, finished, measure
from layerimp.steps import Cuts, Step, Sublayer, removed_by
from layerimp.sweep.cache import BlockCache

if TYPE_CHECKING:
    from layerimp.blocks.stack import BlockStack
    from layerimp.calibration.sampling import CalibrationSet
    from layerimp.pipeline.run import Run
    from layerimp.pruner import Scoring
    from layerimp.scorer import Importance, Scorer
    from layerimp.scoring.selection import Selection
    from layerimp.scoring.series import Units

Memory = MutableMapping[Hashable, Any]
"""What sweeps keep of the intact model on one text; see `layerimp.sweep.Drive.memory`."""
Unit = Literal["block", "sublayer"]
"""The units to score: whole blocks (and seams, if these may be cut), or attention and MLP separately."""


def score_blocks(run: Run, by: Unit = "block", memory: Memory | None = None) -> dict[str, Importance]:
    """Score blocks (and seams, if the recipe cuts them), or with `by` attention and MLP separately.

    All selected scorers share the sweeps. Scorers that fail leave the selection.

    Args:
        run: The run.
        by: The units to score.
        memory: Takes what the sweeps keep for later scorings of the same text.

    Returns:
        The importance, by the scorer's label.
    """
    stack, selection = run.loaded.stack, run.selection
    units: Units = "sublayers" if by == "sublayer" else run.recipe.cuts
    selection.try_out(stack, next(iter(run.text)), units)
    scorers: dict[str, Scorer] = {}
    beside: dict[str, Scorer] = {}
    for label in list(selection.specs):
        with selection.excusing(label):
            first, second = selection.create(units, len(stack), label)
            scorers |= first
            beside |= second
    memory = {} if memory is None else memory
    seen = fill(stack, run.text, scorers, beside=beside, units=units, progress=run.progress, memory=memory)
    importance: dict[str, Importance] = {}
    for label, filled in seen.items():
        with selection.excusing(label):
            importance[label] = finished(label, [filled])
    selection.need_any()
    return importance


def rescoring(
    stack: BlockStack,
    text: CalibrationSet,
    first: Importance,
    selection: Selection,
    label: str,
    cuts: Cuts = "blocks",
    memory: Memory | None = None,
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
        memory: What the sweeps have kept of the same text.
    """
    cache, memory = BlockCache(stack), {} if memory is None else memory
    known: dict[tuple[frozenset[Sublayer], frozenset[Step] | None], Importance] = {(frozenset(), None): first}

    def scoring(removed: Sequence[Step], among: Collection[Step] | None = None) -> Importance:
        taken = removed_by(removed)
        if (taken, None) in known or not _separate(selection, label):
            among = None
        key = taken, None if among is None else frozenset(among)
        if key not in known:
            scorers, beside = selection.create(cuts, len(stack), label, removed=removed, among=among)
            known[key] = measure(
                *(stack, text, scorers),
                beside=beside,
                units=cuts,
                removed=removed,
                progress=selection.progress,
                cache=cache,
                memory=memory,
                among=among,
            )[label]
        return known[key]

    return scoring


def _separate(selection: Selection, label: str) -> bool:
    """Whether a scorer can score some steps without the others."""
    scorers, _ = selection.create("blocks", 2, label)
    scorer = scorers[label]
    return scorer.sweep is not None and scorer.sweep.separate and not scorer.lookback

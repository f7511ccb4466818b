"""Scores the units of a model: of the intact one, and for a pruner those of a partly pruned one."""

from __future__ import annotations

from collections.abc import Collection, Hashable, MutableMapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from layerimp.scoring.engine import fill, finished, measure
from layerimp.steps import Cuts, Step, Sublayer, removed_by
from layerimp.sweep.cache import BlockCache

if TYPE_CHECKING:
    from layerimp.blocks.stack import BlockStack
    from layerimp.calibration.sampling import CalibrationSet
    from layerimp.pipeline.run import Run
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
            importance[label] = finished(label, filled)
    selection.need_any()
    return importance


@dataclass
class Rescoring:
    """The scoring for a pruner: it gives the importance of the steps that can be taken after given removals.

    Each set of removed steps is scored once, so that a longer plan costs only the scorings that are new.

    Attributes:
        stack: The blocks of the intact model.
        text: The text to score on.
        first: The importance of the steps in the intact model.
        selection: The scorers, and where to report progress.
        label: The scorer.
        cuts: What may be removed.
        memory: What the sweeps have kept of the same text.
    """

    stack: BlockStack
    text: CalibrationSet
    first: Importance
    selection: Selection
    label: str
    cuts: Cuts = "blocks"
    memory: Memory = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._cache = BlockCache(self.stack)
        self._known: dict[tuple[frozenset[Sublayer], frozenset[Step] | None], Importance] = {
            (frozenset(), None): self.first
        }

    def __call__(self, removed: Sequence[Step], among: Collection[Step] | None = None) -> Importance:
        """Score the model with some steps taken; see `layerimp.pruner.Scoring`."""
        taken, selection, label = removed_by(removed), self.selection, self.label
        if among is not None and ((taken, None) in self._known or not self._separate):
            among = None
        key = taken, None if among is None else frozenset(among)
        if key not in self._known:
            scorers, beside = selection.create(self.cuts, len(self.stack), label, removed=removed, among=among)
            self._known[key] = measure(
                *(self.stack, self.text, scorers),
                beside=beside,
                units=self.cuts,
                removed=removed,
                progress=selection.progress,
                cache=self._cache,
                memory=self.memory,
                among=among,
            )[label]
        return self._known[key]

    @cached_property
    def _separate(self) -> bool:
        """Whether the scorer can score some steps without the others, which its options decide."""
        scorers, beside = self.selection.create(self.cuts, len(self.stack), self.label)
        scorer = (scorers | beside)[self.label]
        return scorer.sweep is not None and scorer.sweep.separate and not scorer.lookback

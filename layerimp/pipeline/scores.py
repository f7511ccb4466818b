"""Scores the blocks of a model: of the intact one, and for a pruner those of a partly pruned one."""

from __future__ import annotations

from collections.abc import Collection, Hashable, MutableMapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

from layerimp.scoring.engine import fill, finished, measure
from layerimp.sweep.cache import BlockCache

if TYPE_CHECKING:
    from layerimp.blocks.stack import BlockStack
    from layerimp.calibration.sampling import CalibrationSet
    from layerimp.pipeline.run import Run
    from layerimp.scorer import Importance, Scorer
    from layerimp.scoring.selection import Selection

Memory = MutableMapping[Hashable, Any]
"""What sweeps keep of the intact model on one text; see `layerimp.sweep.Drive.memory`."""
Unit = Literal["block", "sublayer"]
"""The units to score: whole blocks, or attention and MLP separately."""


def score_blocks(run: Run, by: Unit = "block", memory: Memory | None = None) -> dict[str, Importance]:
    """Score blocks, or with `by` the attention and the MLP of each block separately.

    All selected scorers share the sweeps. Scorers that fail leave the selection.

    Args:
        run: The run.
        by: The units to score.
        memory: Takes what the sweeps keep for later scorings of the same text.

    Returns:
        The importance, by the scorer's label; for attention and MLP by `LABEL.attn` and `LABEL.mlp`.
    """
    stack, selection = run.loaded.stack, run.selection
    selection.try_out(stack, next(iter(run.text)))
    scorers: dict[str, dict[str, Scorer]] = {}
    for label in list(selection.specs):
        with selection.excusing(label):
            created = selection.create if by == "block" else selection.create_halves
            scorers[label] = created(len(stack), label)
    memory = {} if memory is None else memory
    seen = fill(stack, run.text, dict(chain(*map(dict.items, scorers.values()))), progress=run.progress, memory=memory)
    importance: dict[str, Importance] = {}
    for label, own in scorers.items():
        with selection.excusing(label):
            importance |= {name: finished(name, seen[name]) for name in own}
    selection.need_any()
    return importance


@dataclass
class Rescoring:
    """The scoring for a pruner: it gives the importance of the blocks that are left after given removals.

    Each set of removed blocks is scored once, so that a longer plan costs only the scorings that are new.

    Attributes:
        stack: The blocks of the intact model.
        text: The text to score on.
        first: The importance of the blocks in the intact model.
        selection: The scorers, and where to report progress.
        label: The scorer.
        memory: What the sweeps have kept of the same text.
    """

    stack: BlockStack
    text: CalibrationSet
    first: Importance
    selection: Selection
    label: str
    memory: Memory = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._cache = BlockCache(self.stack)
        self._known: dict[tuple[frozenset[int], frozenset[int] | None], Importance] = {(frozenset(), None): self.first}

    def __call__(self, removed: Sequence[int], among: Collection[int] | None = None) -> Importance:
        """Score the model without some blocks; see `layerimp.pruner.Scoring`."""
        gone, selection, label = frozenset(removed), self.selection, self.label
        if among is not None and ((gone, None) in self._known or not self._separate):
            among = None
        key = gone, None if among is None else frozenset(among)
        if key not in self._known:
            scorers = selection.create(len(self.stack), label, removed=removed, among=among)
            self._known[key] = measure(
                *(self.stack, self.text, scorers),
                removed=removed,
                progress=selection.progress,
                cache=self._cache,
                memory=self.memory,
                among=among,
            )[label]
        return self._known[key]

    @cached_property
    def _separate(self) -> bool:
        """Whether the scorer can score some blocks without the others, which its options decide."""
        scorer = self.selection.create(len(self.stack), self.label)[self.label]
        return scorer.sweep is not None and scorer.sweep.separate and not scorer.lookback

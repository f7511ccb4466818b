"""The scores of blocks, and how much scorers agree."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from layerimp.report.results.measures import Interval
from layerimp.report.results.part import Part
from layerimp.scorer import Importance


class Scored(Part):
    """How one scorer scored one model."""

    blocks: list[int]
    """The scored blocks, by depth. With the label `NAME.attn` or `NAME.mlp`, only the attention or the MLP of each."""
    scores: list[list[float]]
    """By repeat, one score for each block; a higher score means: keep."""
    means: list[Interval]
    """The mean score of each block."""
    tau: float | None
    """Kendall's tau between repeats, averaged over their pairs; null for a single repeat."""
    cost: float | None
    """The time of scoring one batch, as a multiple of a bare forward pass; 0 for a scorer that reads no text, null if
    it was not timed."""
    columns: dict[str, list[float]]
    """Further numbers of the first repeat, by name and block."""
    notes: list[str]
    """Notes for a reader of the scores."""
    spans: dict[int, list[float]]
    """By window length, the scores of windows of neighbouring blocks in the first repeat, ordered by first block."""

    @property
    def importance(self) -> Importance:
        """The importance in the first repeat, by depth."""
        return Importance(self.scores[0], self.blocks, self.columns, self.spans, self.notes)

    def on(self, blocks: Collection[int]) -> list[list[float]]:
        """Return the scores of some of the blocks, by repeat, in the order of `blocks`."""
        places = [self.blocks.index(block) for block in blocks]
        return [[scores[place] for place in places] for scores in self.scores]


class Agreement(Part):
    """How much two scorers agree on one model."""

    scorers: tuple[str, str]
    """The labels of the two scorers."""
    tau: float | None
    """Kendall's tau between their scores, averaged over the pairs of repeats; null if one of them gives all blocks the
    same score."""


def common_blocks(scored: Iterable[Collection[int]]) -> list[int]:
    """Return the blocks that all scorings have in common, in depth order."""
    sets = list(map(set, scored))
    return sorted(set.intersection(*sets)) if sets else []

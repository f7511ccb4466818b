"""The scores of blocks, and how much scorers agree."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from layerimp.report.results.measures import Interval
from layerimp.report.results.part import Part
from layerimp.scorer import Importance
from layerimp.steps import Step, sublayers_of


class Scored(Part):
    """How one scorer scored one model."""

    steps: list[Step]
    """The scored steps, by depth: blocks as numbers; seams such as `17/18`, or single sublayers such as `7.mlp`, as
    text."""
    scores: list[list[float]]
    """By repeat, one score for each step; a higher score means: keep."""
    means: list[Interval]
    """The mean score of each step."""
    tau: float | None
    """Kendall's tau between repeats, averaged over their pairs; null for a single repeat."""
    cost: float | None
    """The time of scoring one batch, as a multiple of a bare forward pass; 0 for a scorer that reads no text, null if
    it was not timed."""
    columns: dict[str, list[float]]
    """Further numbers of the first repeat, by name and step."""
    notes: list[str]
    """Notes for a reader of the scores."""
    spans: dict[int, list[float]]
    """By window length, the scores of windows of neighbouring blocks in the first repeat, ordered by first block; with
    seams, windows that begin with a block alternate with windows that begin with a seam."""

    @property
    def importance(self) -> Importance:
        """The importance in the first repeat, by depth."""
        return Importance(self.scores[0], self.steps, self.columns, self.spans, self.notes)

    def on(self, steps: Collection[Step]) -> list[list[float]]:
        """Return the scores of some of the steps, by repeat, in the order of `steps`."""
        places = [self.steps.index(step) for step in steps]
        return [[scores[place] for place in places] for scores in self.scores]


class Agreement(Part):
    """How much two scorers agree on one model."""

    scorers: tuple[str, str]
    """The labels of the two scorers."""
    tau: float | None
    """Kendall's tau between their scores, averaged over the pairs of repeats; null if one of them gives all blocks the
    same score."""


def common_steps(scored: Iterable[Collection[Step]]) -> list[Step]:
    """Return the steps that all scorings have in common, in depth order."""
    sets = [set(steps) for steps in scored]
    return sorted(set.intersection(*sets), key=sublayers_of) if sets else []

"""The result of a search for the most blocks that may be removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from layerimp.pruner import PrunePlan
    from layerimp.report.statistics.paired_bootstrap import Estimate


@dataclass(frozen=True)
class Tried:
    """A model that the search tried.

    Attributes:
        count: The number of removed blocks.
        searched: What the model retains on the documents that the search uses; None if it could not be measured.
        confirmed: What the model retains on all other documents.
        why: Why the model could not be measured; empty if it could.
    """

    count: int
    searched: Estimate | None
    confirmed: Estimate | None
    why: str = ""


@dataclass(frozen=True)
class Removable:
    """How many blocks may be removed by one scorer, with or without healing.

    Attributes:
        scorer: The label of the scorer.
        healer: The label of the healer; empty without healing.
        count: The number of blocks; 0 if one is too many.
        plan: The plan; None if no block may be removed.
        first: The number that the search found, before it was confirmed.
        tried: The models that were tried, ordered by the number of removed blocks.
    """

    scorer: str
    healer: str
    count: int
    plan: PrunePlan | None
    first: int
    tried: Sequence[Tried]

    @property
    def last(self) -> Tried | None:
        """The model that was confirmed; None if no block may be removed."""
        return next((one for one in self.tried if one.count == self.count), None)


@dataclass(frozen=True)
class Search:
    """The result of a search.

    Attributes:
        keep: The share that has to be retained.
        measured_on: The tasks, or the text, on which the share is measured.
        held_out: Whether it is measured on held-out text, because there are no tasks.
        removable: The results, by label of the scorer, or SCORER+HEALER.
    """

    keep: float
    measured_on: Sequence[str]
    held_out: bool
    removable: Mapping[str, Removable]

    @property
    def order(self) -> list[str]:
        """The labels, by the most removable blocks, and then by what is retained on the confirming documents."""

        def rank(label: str) -> tuple[float, float]:
            found = self.removable[label]
            kept = found.last.confirmed if found.last else None
            return -found.count, 0.0 if kept is None else -kept.mean

        return sorted(self.removable, key=rank)

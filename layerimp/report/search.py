"""What a search for the most blocks that may go has found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from layerimp.pruner import PrunePlan
    from layerimp.report.paired_bootstrap import Estimate


@dataclass(frozen=True)
class Tried:
    """A model that the search tried.

    Attributes:
        count: How many blocks had gone.
        searched: What it retains on the documents that the search chooses by; None where it could not be measured.
        confirmed: The same on all other documents.
        why: Why it could not be measured; empty where it could.
    """

    count: int
    searched: Estimate | None
    confirmed: Estimate | None
    why: str = ""


@dataclass(frozen=True)
class Removable:
    """How many blocks may go by one scorer's choice, as they are removed or healed.

    Attributes:
        scorer: The label of the scorer.
        healer: The label of the healer; empty where nothing is healed.
        count: How many; 0 where one is too many.
        plan: What goes; None where nothing does.
        first: What the search found before it was confirmed.
        tried: The models that were tried, from few blocks to many.
    """

    scorer: str
    healer: str
    count: int
    plan: PrunePlan | None
    first: int
    tried: Sequence[Tried]

    @property
    def last(self) -> Tried | None:
        """The model that was confirmed; None where nothing may go."""
        return next((one for one in self.tried if one.count == self.count), None)


@dataclass(frozen=True)
class Search:
    """What a search has found.

    Attributes:
        keep: The share that has to be retained.
        measured_on: The tasks, or the text, that it is measured on.
        held_out: Whether it is measured on text that was held out, for want of tasks.
        removable: By label of the scorer, or of what a healer made of its models.
    """

    keep: float
    measured_on: Sequence[str]
    held_out: bool
    removable: Mapping[str, Removable]

    @property
    def order(self) -> list[str]:
        """The labels, from the most removable blocks to the fewest; of equals, the one that retains more on documents
        that confirm."""

        def rank(label: str) -> tuple[float, float]:
            found = self.removable[label]
            kept = found.last.confirmed if found.last else None
            return -found.count, 0.0 if kept is None else -kept.mean

        return sorted(self.removable, key=rank)

"""The things that a comparison compares: scorers, each without healing and with each healer."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from layerimp.report.results.part import Part


@dataclass(frozen=True)
class Contender:
    """The models pruned by one scorer's plans, unhealed or healed.

    Attributes:
        scorer: The label of the scorer.
        healer: The label of the healer; empty for models that are not healed.
    """

    scorer: str
    healer: str = ""

    @property
    def label(self) -> str:
        """The name in tables: SCORER, or SCORER+HEALER."""
        return f"{self.scorer}+{self.healer}" if self.healer else self.scorer


class OfContender(Part):
    """Base of the results of one contender."""

    scorer: str
    """The label of the scorer, or of the plan."""
    healer: str
    """The label of the healer; empty for models that are not healed."""

    @property
    def contender(self) -> Contender:
        """The scorer, and the healer if there is one."""
        return Contender(self.scorer, self.healer)

    @property
    def label(self) -> str:
        """The name in tables: SCORER, or SCORER+HEALER."""
        return self.contender.label


def contenders(scorers: Iterable[str], healers: Collection[str]) -> dict[str, Contender]:
    """Return all contenders by label: for each scorer the unhealed models, then those healed by each healer."""
    pairs = [Contender(scorer, healer) for scorer in scorers for healer in ("", *healers)]
    return {contender.label: contender for contender in pairs}

"""What a pruner has scored, by a trial with equal scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerimp.scorer import Importance
from layerimp.scoring.engine import scored_blocks

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from layerimp.pruner import Budget, Pruner

    Asked = set[tuple[tuple[int, ...], frozenset[int]]]


def trial(pruner: Pruner, budget: Budget) -> Asked:
    """Find out what a pruner asks for, by a trial with equal scores.

    Returns:
        For each scoring, the removed and the scored blocks.

    Raises:
        OptionError: the pruner cannot keep to the budget.
    """
    asked: Asked = set()

    def scoring(removed: Sequence[int], among: Collection[int] | None = None) -> Importance:
        blocks = scored_blocks(removed, budget.num_blocks, among)
        asked.add((tuple(sorted(removed)), frozenset(blocks)))
        return Importance([0.0] * len(blocks), blocks)

    pruner.within_budget(scoring, budget)
    return asked

"""The pruner `lowest`: remove the blocks with the lowest scores, all at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerimp import PrunePlan, Pruner, hookimpl

if TYPE_CHECKING:
    from layerimp.pruner import Budget, Scoring


class Lowest(Pruner):
    """Removes the blocks with the lowest scores, from one scoring; of two equal scores the deeper block goes first."""

    name = "lowest"
    nested = True
    reference = "one-shot removal, as in Song et al. 2024, arXiv:2411.02117"

    def plan(self, scoring: Scoring, budget: Budget) -> PrunePlan:
        """Take the forced blocks, then the unprotected blocks with the lowest scores."""
        ranked = [block for block in scoring(()).weakest_first() if block not in budget.protected]
        blocks = list(dict.fromkeys([*budget.forced, *ranked]))[: budget.count]
        return PrunePlan(num_blocks=budget.num_blocks, blocks=blocks, reason="lowest scores first")


@hookimpl
def layerimp_pruners() -> list[type[Pruner]]:
    """Return this plugin's pruner."""
    return [Lowest]

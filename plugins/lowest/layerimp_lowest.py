"""The pruner `lowest`: the blocks with the least scores go, all at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerimp import PrunePlan, Pruner, hookimpl

if TYPE_CHECKING:
    from layerimp.pruner import Budget, Scoring


class Lowest(Pruner):
    """Removes the blocks with the lowest scores, from one scoring; of two equal ones the deeper goes first."""

    name = "lowest"
    nested = True
    reference = "one-shot removal, as in Song et al. 2024, arXiv:2411.02117"

    def plan(self, scoring: Scoring, budget: Budget) -> PrunePlan:
        """Take the forced blocks, then the weakest that are not protected."""
        ranked = dict.fromkeys([*budget.forced, *scoring(()).weakest_first()])
        chosen = [block for block in ranked if block not in budget.protected][: budget.count]
        return PrunePlan(num_blocks=budget.num_blocks, blocks=chosen, reason="lowest scores first")


@hookimpl
def layerimp_pruners() -> list[type[Pruner]]:
    """The pruner of this plugin."""
    return [Lowest]

"""The pruner `lowest`: remove the blocks with the lowest scores, all at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerimp import PrunePlan, Pruner, hookimpl
from layerimp.errors import OptionError
from layerimp.steps import Step, removed_by, sublayers_of, touched_by

if TYPE_CHECKING:
    from layerimp.pruner import Budget, Scoring


class Lowest(Pruner):
    """Removes the blocks with the lowest scores, from one scoring; of two equal scores the deeper block goes first."""

    name = "lowest"
    nested = True
    cuts_seams = True
    reference = "one-shot removal, as in Song et al. 2024, arXiv:2411.02117"

    def plan(self, scoring: Scoring, budget: Budget) -> PrunePlan:
        """Take the forced steps, then the lowest-scoring unprotected steps that do not overlap with an earlier one.

        If so many seams were taken that no scored step is left whole, the remaining steps are scored again.

        Raises:
            OptionError: the budget asks for more steps than may be removed.
        """
        taken, passed_over = list(budget.forced), list[Step]()
        ranked = scoring(()).weakest_first()
        while len(taken) < budget.count:
            before = len(taken)
            removed = set(removed_by(taken))
            for step in ranked:
                if len(taken) == budget.count:
                    break
                if budget.protected & touched_by([step]) or step in taken:
                    continue
                if removed.isdisjoint(parts := sublayers_of(step)):
                    taken.append(step)
                    removed.update(parts)
                else:
                    passed_over.append(step)
            if len(taken) == before:
                raise OptionError(f"{budget.count} blocks are to go, but only {before} are not protected")
            if len(taken) < budget.count:
                ranked = scoring(taken).weakest_first()
        reason = "lowest scores first"
        if passed_over:
            reason += f"; passed over, since a part of them had gone: {', '.join(map(str, passed_over))}"
        return PrunePlan(num_blocks=budget.num_blocks, blocks=taken, reason=reason)


@hookimpl
def layerimp_pruners() -> list[type[Pruner]]:
    """Return this plugin's pruner."""
    return [Lowest]

"""The pruner `window`: a contiguous run of blocks goes (Gromov et al. 2024, arXiv:2403.17887)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerimp import PrunePlan, Pruner, hookimpl
from layerimp.errors import OptionError

if TYPE_CHECKING:
    from layerimp.pruner import Budget, Scoring


class Window(Pruner):
    """Removes the neighbouring blocks with the least total score, or the least window that the scorer scored."""

    name = "window"
    reference = "Gromov et al. 2024, arXiv:2403.17887"

    def plan(self, scoring: Scoring, budget: Budget) -> PrunePlan:
        """Take the best run that holds every forced block and no protected one; of two equal ones the deeper.

        Raises:
            OptionError: there is none.
        """
        if seams := [step for step in budget.forced if isinstance(step, str)]:
            raise OptionError(f"a window is a run of whole blocks, and {seams[0]} is none; choose another pruner")
        importance, length = scoring(()), budget.count
        runs = [range(start, start + length) for start in range(budget.num_blocks - length + 1)]
        scores = dict(zip(importance.blocks, importance.scores, strict=True))
        totals = importance.spans.get(length) or [sum(scores[block] for block in run) for run in runs]
        allowed = [
            (total, run)
            for total, run in zip(totals, runs, strict=True)
            if budget.protected.isdisjoint(run) and set(budget.forced) <= set(run)
        ]
        if not allowed:
            raise OptionError(f"no run of {length} neighbouring blocks holds all that must go and none that must stay")
        total, run = min(allowed, key=lambda pair: (pair[0], -pair[1].start))
        kind = "least window of the scorer" if length in importance.spans else "least total score of a run"
        return PrunePlan(num_blocks=budget.num_blocks, blocks=list(run), reason=f"{kind}: {total:.6g}")


@hookimpl
def layerimp_pruners() -> list[type[Pruner]]:
    """The pruner of this plugin."""
    return [Window]

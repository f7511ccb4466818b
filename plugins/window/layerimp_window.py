"""The pruner `window`: remove one contiguous run of blocks (Gromov et al. 2024, arXiv:2403.17887)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerimp import PrunePlan, Pruner, hookimpl
from layerimp.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from layerimp import Importance
    from layerimp.pruner import Budget, Scoring


class Window(Pruner):
    """Removes the run of blocks with the lowest total score, or with the lowest window score if the scorer has one."""

    name = "window"
    reference = "Gromov et al. 2024, arXiv:2403.17887"

    def plan(self, scoring: Scoring, budget: Budget) -> PrunePlan:
        """Take the lowest-scoring run with every forced block and no protected block; of two equal runs the deeper one.

        Raises:
            OptionError: no run of this length contains every forced block and no protected block.
        """
        importance, length = scoring(()), budget.count
        runs = [range(first, first + length) for first in range(budget.num_blocks - length + 1)]
        allowed = [
            (total, run)
            for total, run in zip(_totals(importance, runs), runs, strict=True)
            if set(budget.forced) <= set(run) and budget.protected.isdisjoint(run)
        ]
        if not allowed:
            raise OptionError(f"no run of {length} neighbouring blocks holds all that must go and none that must stay")
        total, run = min(allowed, key=lambda pair: (pair[0], -pair[1].start))
        kind = "least window of the scorer" if length in importance.spans else "least total score of a run"
        blocks = list(dict.fromkeys([*budget.forced, *run]))
        return PrunePlan(num_blocks=budget.num_blocks, blocks=blocks, reason=f"{kind}: {total:.6g}")


def _totals(importance: Importance, runs: Sequence[range]) -> Sequence[float]:
    """Return the scores of runs of one length: the scorer's window scores, if there are any, else sums over blocks."""
    if (windows := importance.spans.get(len(runs[0]))) is not None:
        return windows
    scores = dict(zip(importance.blocks, importance.scores, strict=True))
    return [sum(scores[block] for block in run) for run in runs]


@hookimpl
def layerimp_pruners() -> list[type[Pruner]]:
    """Return this plugin's pruner."""
    return [Window]

"""The pruner `window`: remove one contiguous run of blocks (Gromov et al. 2024, arXiv:2403.17887)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerimp import PrunePlan, Pruner, hookimpl
from layerimp.errors import OptionError
from layerimp.steps import Sublayer, paired, removed_by, steps_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from layerimp import Importance
    from layerimp.pruner import Budget, Scoring

Run = tuple[Sublayer, ...]
"""An even number of consecutive sublayers."""


class Window(Pruner):
    """Removes the run of blocks with the lowest total score, or with the lowest window score if the scorer has one."""

    name = "window"
    cuts_seams = True
    reference = "Gromov et al. 2024, arXiv:2403.17887"

    def plan(self, scoring: Scoring, budget: Budget) -> PrunePlan:
        """Take the lowest-scoring run with every forced step and no protected block; of two equal runs the deeper one.

        Raises:
            OptionError: no run of this length contains every forced step and no protected block; or seams are not
                scored, and a forced step is not a whole block.
        """
        importance, length = scoring(()), budget.count
        seams = any(isinstance(step, str) for step in importance.blocks)
        if not seams and (halves := [step for step in budget.forced if isinstance(step, str)]):
            raise OptionError(f"a window is a run of whole blocks, and {halves[0]} is none; choose another pruner")
        runs = _runs(length, budget.num_blocks, seams=seams)
        forced = removed_by(budget.forced)
        allowed = [
            (total, run)
            for total, run in zip(_totals(importance, runs, length), runs, strict=True)
            if forced <= set(run) and budget.protected.isdisjoint(part.block for part in run)
        ]
        if not allowed:
            raise OptionError(f"no run of {length} neighbouring blocks holds all that must go and none that must stay")
        total, run = min(allowed, key=lambda pair: (pair[0], -pair[1][0].depth))
        kind = "least window of the scorer" if length in importance.spans else "least total score of a run"
        steps = [*budget.forced, *paired(set(run) - forced, budget.forced)] if forced else steps_of(run)
        return PrunePlan(num_blocks=budget.num_blocks, blocks=steps, reason=f"{kind}: {total:.6g}")


def _runs(length: int, num_blocks: int, *, seams: bool) -> list[Run]:
    """Return all runs of `length` blocks, in order of depth; with seams, also runs from an MLP to an attention."""
    starts = range(0, 2 * (num_blocks - length) + 1, 1 if seams else 2)
    return [tuple(map(Sublayer.at, range(start, start + 2 * length))) for start in starts]


def _totals(importance: Importance, runs: Sequence[Run], length: int) -> Sequence[float]:
    """Return the scores of runs: the scorer's window scores, if there are any, else sums over blocks or seams."""
    if length in importance.spans:
        return importance.spans[length]
    scores = dict(zip(importance.blocks, importance.scores, strict=True))
    return [sum(scores[step] for step in steps_of(run)) for run in runs]


@hookimpl
def layerimp_pruners() -> list[type[Pruner]]:
    """Return this plugin's pruner."""
    return [Window]

"""The contracts of a pruner, checked on made-up scores."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any

from layerimp.errors import LayerimpError, OptionError, PluginError
from layerimp.pruner import Budget, PrunePlan, Pruner
from layerimp.scorer import Importance
from layerimp.steps import Cuts, Step, candidates, checked_steps, removed_by, sublayers_of, touched_by
from layerimp.testing.contracts import Contracts, named, only_if, require

NUM_BLOCKS = 6
SCORES = (5.0, 1.0, 3.0, 2.0, 4.0, 0.5)
SEAM = 0.05
"""The score of a seam exceeds that of the weaker block beside it by this amount, so that weak steps overlap."""
BUDGETS: tuple[dict[str, Any], ...] = (
    {"count": 1},
    {"count": 2},
    {"count": NUM_BLOCKS - 1},
    {"count": 2, "protect": (0, 5)},
    {"count": 4, "protect": (2,)},
    {"count": 3, "forced": (0,)},
    {"count": 3, "protect": (1,), "forced": (4,)},
    {"count": 3, "forced": ("1/2",)},
    {"count": NUM_BLOCKS - 1, "forced": (0, "4/5")},
)


class _Scoring:
    """Gives made-up scores, which change a little with the removed steps, and records each request."""

    def __init__(self, cuts: Cuts) -> None:
        self.cuts = cuts
        self.asked: list[tuple[Step, ...]] = []
        self.given: list[tuple[Importance, Importance]] = []

    def __call__(self, removed: Sequence[Step], among: Collection[Step] | None = None) -> Importance:
        self.asked.append(tuple(removed))
        touched = touched_by(removed)
        steps = [step for series in candidates(removed, NUM_BLOCKS, self.cuts) for step in series]
        steps = [step for step in steps if among is None or step in among]
        steps.sort(key=lambda step: min(removed_by([step])))
        scores = [_score(step) + 0.25 * sum(other < sublayers_of(step)[0].block for other in touched) for step in steps]
        importance = Importance(scores=scores, blocks=steps)
        self.given.append((importance, copy.deepcopy(importance)))
        return importance


def _score(step: Step) -> float:
    first, second = (SCORES[part.block] for part in sublayers_of(step))
    return first if isinstance(step, int) else min(first, second) + SEAM


class PrunerContracts(Contracts[Pruner]):
    """The contracts of a pruner, if it may take blocks alone, or seams as well."""

    def __init__(self, pruner: Pruner, cuts: Cuts = "blocks") -> None:
        super().__init__(pruner)
        self._cuts = cuts

    def _budgets(self) -> list[Budget]:
        return [Budget.exactly(num_blocks=NUM_BLOCKS, cuts=self._cuts, **budget) for budget in BUDGETS]

    def _plan(self, budget: Budget, scoring: _Scoring | None = None) -> PrunePlan | None:
        """Return a plan, or None if the pruner says that no plan exists."""
        try:
            return self._fresh().within_budget(scoring or _Scoring(self._cuts), budget)
        except PluginError:
            raise
        except LayerimpError as error:
            easy = not budget.forced and not budget.protected and budget.count < 3
            require(not easy, f"it refuses to remove {budget.count} of {NUM_BLOCKS} blocks: {error}")
        return None

    def _scorings(self) -> Iterator[tuple[Budget, _Scoring]]:
        """Yield each budget, with the scoring that the pruner has used to plan for it."""
        for budget in self._budgets():
            scoring = _Scoring(self._cuts)
            self._plan(budget, scoring)
            yield budget, scoring

    def the_budget_is_kept(self) -> None:
        """A plan has as many steps as the budget says, all forced steps among them, and no other protected blocks.

        A forced step may be a seam, such as `1/2`. If there is no such plan, the pruner raises a `LayerimpError`.
        """
        for budget in self._budgets():
            if (plan := self._plan(budget)) is not None:
                blocks = plan.num_blocks
                require(blocks == NUM_BLOCKS, f"the plan is for {blocks} blocks, the model has {NUM_BLOCKS}")

    def plans_are_repeatable(self) -> None:
        """The same scores and budget give the same plan."""
        for budget in self._budgets():
            first, second = self._plan(budget), self._plan(budget)
            require(first == second, f"removing {budget.count} blocks it plans {second} after {first}")

    def scores_stay_as_they_are(self) -> None:
        """The scores that a scoring returned are not changed, since the report shows them.

        Sort a copy.
        """
        for _, scoring in self._scorings():
            for given, copied in scoring.given:
                require(given == copied, f"the scores {copied.scores} have become {given.scores}")

    def scoring_is_asked_soundly(self) -> None:
        """A scoring is asked only for steps that exist, that may be removed, and that leave a model."""
        for budget, scoring in self._scorings():
            for removed in scoring.asked:
                without = f"without the blocks {_listed(removed)} of {NUM_BLOCKS}"
                require(_is_sound(removed), f"it asks for the scores {without}")
                kept = budget.protected.isdisjoint(touched_by(set(removed).difference(budget.forced)))
                require(kept, f"it asks for scores without a protected block: {_listed(removed)}")

    @only_if(lambda pruner: pruner.nested)
    def plans_are_nested(self) -> None:
        """If the pruner declares `nested`, a plan for fewer blocks is the start of a plan for more.

        A grid then plans once for all amounts.
        """
        for forced in ((), (4,), ("1/2",)):
            counts = range(1, NUM_BLOCKS)
            budgets = [Budget.exactly(count, NUM_BLOCKS, forced=forced, cuts=self._cuts) for count in counts]
            orders = [plan.blocks for plan in map(self._plan, budgets) if plan is not None]
            for fewer, more in pairwise(orders):
                require(more[: len(fewer)] == fewer, f"the plan {more} does not begin with the plan {fewer}")

    @only_if(lambda pruner: pruner.cuts_seams)
    def seams_are_cut(self) -> None:
        """If the pruner declares `cuts_seams`, all contracts also hold if seams can be taken.

        Steps of one scoring may overlap, such as `5` and `5/6`; a later scoring lists what is still possible.
        """
        for name, contract in named(PrunerContracts(self.component, "all")).items():
            if name != "seams are cut":
                contract()


def _is_sound(removed: Sequence[Step]) -> bool:
    """Whether steps exist, can be taken one after the other, and leave a model."""
    with suppress(OptionError):
        return len(checked_steps(removed, NUM_BLOCKS)) < NUM_BLOCKS
    return False


def _listed(steps: Iterable[Step]) -> str:
    return f"[{', '.join(map(str, steps))}]"

"""The contracts of a pruner, checked on made-up scores."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise

from layerimp.errors import LayerimpError, PluginError
from layerimp.pruner import Budget, PrunePlan, Pruner
from layerimp.scorer import Importance
from layerimp.scoring.engine import scored_blocks
from layerimp.testing.contracts import Contracts, only_if, require

NUM_BLOCKS = 6
SCORES = (5.0, 1.0, 3.0, 2.0, 4.0, 0.5)
BUDGETS = (
    Budget.exactly(1, NUM_BLOCKS),
    Budget.exactly(2, NUM_BLOCKS),
    Budget.exactly(NUM_BLOCKS - 1, NUM_BLOCKS),
    Budget.exactly(2, NUM_BLOCKS, protect=(0, 5)),
    Budget.exactly(4, NUM_BLOCKS, protect=(2,)),
    Budget.exactly(3, NUM_BLOCKS, forced=(0,)),
    Budget.exactly(3, NUM_BLOCKS, protect=(1,), forced=(4,)),
)


class _Scoring:
    """Gives made-up scores, which change a little with the removed blocks, and records each request."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, ...]] = []
        self.given: list[tuple[Importance, Importance]] = []

    def __call__(self, removed: Sequence[int], among: Collection[int] | None = None) -> Importance:
        self.asked.append(tuple(removed))
        blocks = scored_blocks(removed, NUM_BLOCKS, among)
        scores = [SCORES[block] + 0.25 * sum(other < block for other in removed) for block in blocks]
        importance = Importance(scores=scores, blocks=blocks)
        self.given.append((importance, copy.deepcopy(importance)))
        return importance


class PrunerContracts(Contracts[Pruner]):
    """The contracts of a pruner."""

    def _plan(self, budget: Budget, scoring: _Scoring | None = None) -> PrunePlan | None:
        """Return a plan, or None if the pruner says that no plan exists."""
        try:
            return self._fresh().within_budget(scoring or _Scoring(), budget)
        except PluginError:
            raise
        except LayerimpError as error:
            easy = not budget.forced and not budget.protected and budget.count < 3
            require(not easy, f"it refuses to remove {budget.count} of {NUM_BLOCKS} blocks: {error}")
        return None

    def _scorings(self) -> Iterator[tuple[Budget, _Scoring]]:
        """Yield each budget, with the scoring that the pruner has used to plan for it."""
        for budget in BUDGETS:
            scoring = _Scoring()
            self._plan(budget, scoring)
            yield budget, scoring

    def the_budget_is_kept(self) -> None:
        """A plan has as many blocks as the budget says, all forced blocks among them, and no other protected blocks.

        If there is no such plan, the pruner raises a `LayerimpError`.
        """
        for budget in BUDGETS:
            if (plan := self._plan(budget)) is not None:
                blocks = plan.num_blocks
                require(blocks == NUM_BLOCKS, f"the plan is for {blocks} blocks, the model has {NUM_BLOCKS}")

    def plans_are_repeatable(self) -> None:
        """The same scores and budget give the same plan."""
        for budget in BUDGETS:
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
        """A scoring is asked only for blocks that exist, that may be removed, and that leave a model."""
        for budget, scoring in self._scorings():
            for removed in scoring.asked:
                named = f"{list(removed)} of {NUM_BLOCKS}"
                sound = len(set(removed)) == len(removed) < NUM_BLOCKS and set(removed) <= set(range(NUM_BLOCKS))
                require(sound, f"it asks for the scores without the blocks {named}")
                require(budget.protected.isdisjoint(removed), f"it asks for scores without a protected block: {named}")

    def plans_are_nested(self) -> None:
        """If the pruner declares `nested`, a plan for fewer blocks is the start of a plan for more.

        A grid then plans once for all amounts.
        """
        only_if(self.component.nested)
        for forced in ((), (4,)):
            counts = range(1, NUM_BLOCKS)
            budgets = [Budget.exactly(count, NUM_BLOCKS, forced=forced) for count in counts]
            orders = [plan.blocks for plan in map(self._plan, budgets) if plan is not None]
            for fewer, more in pairwise(orders):
                require(more[: len(fewer)] == fewer, f"the plan {more} does not begin with the plan {fewer}")

"""A pruner that keeps its contracts, and for each contract a pruner that breaks it."""

from __future__ import annotations

from typing import Any, Literal

from layerimp import PrunePlan, Pruner


class Deepest(Pruner):
    """Removes the deepest blocks that may go."""

    name = "deepest"
    nested = True

    def plan(self, scoring: Any, budget: Any) -> PrunePlan:
        scoring(())
        free = [b for b in reversed(range(budget.num_blocks)) if b not in budget.protected | set(budget.forced)]
        blocks = [*budget.forced, *free][: budget.count]
        return PrunePlan(num_blocks=budget.num_blocks, blocks=blocks)


class Spendthrift(Deepest):
    """Removes a block more than it may."""

    def plan(self, scoring: Any, budget: Any) -> PrunePlan:
        plan = super().plan(scoring, budget)
        free = [block for block in range(budget.num_blocks) if block not in plan.blocks]
        return plan.model_copy(update={"blocks": [*plan.blocks, free[0]]})


class Reckless(Deepest):
    """Ignores protected blocks."""

    def plan(self, scoring: Any, budget: Any) -> PrunePlan:
        return super().plan(scoring, type(budget)(budget.num_blocks, budget.count, frozenset(), budget.forced))


class Planless(Deepest):
    """Gives a list of blocks."""

    def plan(self, scoring: Any, budget: Any) -> Any:
        return super().plan(scoring, budget).blocks


class Moody(Deepest):
    """Plans something else each time."""

    turn: Literal[0, 1] = 0

    def plan(self, scoring: Any, budget: Any) -> PrunePlan:
        Moody.turn = 1 - Moody.turn
        plan = super().plan(scoring, budget)
        return plan.model_copy(update={"blocks": plan.blocks[:: 1 if Moody.turn else -1], "reason": str(Moody.turn)})


class Sorting(Deepest):
    """Sorts the scores that it was given."""

    def plan(self, scoring: Any, budget: Any) -> PrunePlan:
        scoring(()).scores.sort()
        return super().plan(scoring, budget)


class Asking(Deepest):
    """Asks for scores without a protected block."""

    def plan(self, scoring: Any, budget: Any) -> PrunePlan:
        scoring((0, 5))
        return super().plan(scoring, budget)


class Fickle(Deepest):
    """Declares nested plans, but reverses them."""

    def plan(self, scoring: Any, budget: Any) -> PrunePlan:
        plan = super().plan(scoring, budget)
        return plan.model_copy(update={"blocks": plan.blocks[::-1]})


WRONG_PRUNERS: list[tuple[type[Pruner], str, str]] = [
    (Spendthrift, "the budget is kept", "it broke its budget: 1 block, got .5, 0."),
    (Reckless, "the budget is kept", "it broke its budget: 2 blocks, got .5, 4."),
    (Planless, "the budget is kept", "gives list, not a PrunePlan"),
    (Moody, "plans are repeatable", "it plans"),
    (Sorting, "scores stay as they are", "have become"),
    (Asking, "scoring is asked soundly", "without a protected block"),
    (Fickle, "plans are nested", "does not begin with"),
]

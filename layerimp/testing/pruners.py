"""What a pruner has to keep to, tried on made-up scores."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any

from layerimp.errors import LayerimpError, OptionError
from layerimp.pruner import Budget, PrunePlan, Pruner
from layerimp.scorer import Importance
from layerimp.steps import Step, checked_steps, touched_by
from layerimp.testing.assertions import require

NUM_BLOCKS = 6
SCORES = (5.0, 1.0, 3.0, 2.0, 4.0, 0.5)
BUDGETS = (
    Budget.exactly(1, NUM_BLOCKS),
    Budget.exactly(2, NUM_BLOCKS),
    Budget.exactly(NUM_BLOCKS - 1, NUM_BLOCKS),
    Budget.exactly(2, NUM_BLOCKS, protect=(0, 5)),
    Budget.exactly(3, NUM_BLOCKS, forced=(0,)),
    Budget.exactly(3, NUM_BLOCKS, protect=(1,), forced=(4,)),
    Budget.exactly(3, NUM_BLOCKS, forced=("1/2",)),
    Budget.exactly(NUM_BLOCKS - 1, NUM_BLOCKS, forced=(0, "4/5")),
)


class _Scoring:
    """Made-up scores, that change a little with what was removed; remembers what was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Step, ...]] = []
        self.given: list[tuple[Importance, Importance]] = []

    def __call__(self, removed: Sequence[Step]) -> Importance:
        self.asked.append(tuple(removed))
        gone = touched_by(removed)
        blocks = [block for block in range(NUM_BLOCKS) if block not in gone]
        scores = [SCORES[block] + 0.25 * sum(other < block for other in gone) for block in blocks]
        made = Importance(scores=scores, blocks=blocks)
        self.given.append((made, copy.deepcopy(made)))
        return made


def _plan(pruner: Pruner, budget: Budget, scoring: _Scoring | None = None) -> PrunePlan | None:
    """A plan, or None where the pruner says that there is none."""
    try:
        plan = type(pruner)(pruner.config).plan(scoring or _Scoring(), budget)
    except LayerimpError as error:
        require(budget not in BUDGETS[:2], f"it refuses to remove {budget.count} of {NUM_BLOCKS} blocks: {error}")
        return None
    require(isinstance(plan, PrunePlan), f"plan() gives {type(plan).__name__}, not a PrunePlan")
    return plan


def budget_is_kept(pruner: Pruner) -> None:
    """As many go as the budget says, what is forced among them, and of what is protected no more than that."""
    for budget in BUDGETS:
        if (plan := _plan(pruner, budget)) is None:
            continue
        require(plan.num_blocks == NUM_BLOCKS, f"the plan is for {plan.num_blocks} blocks, the model has {NUM_BLOCKS}")
        gone, chosen = plan.blocks, set(plan.blocks).difference(budget.forced)
        require(len(gone) == budget.count, f"{len(gone)} blocks go where the budget says {budget.count}")
        kept = budget.protected.isdisjoint(touched_by(chosen))
        require(kept, f"a block goes that the budget protects: {_listed(gone)}")
        require(set(gone).issuperset(budget.forced), f"a block stays that the budget forces out: {_listed(gone)} go")


def plans_are_repeatable(pruner: Pruner) -> None:
    """Same scores, same budget, same plan."""
    for budget in BUDGETS[:3]:
        first, second = _plan(pruner, budget), _plan(pruner, budget)
        require(first == second, f"removing {budget.count} blocks it plans {second} after {first}")


def scores_stay(pruner: Pruner) -> None:
    """What a scoring gave is read, and not changed: a report shows it."""
    for budget in BUDGETS[:3]:
        scoring = _Scoring()
        _plan(pruner, budget, scoring)
        for given, copied in scoring.given:
            require(given == copied, f"the scores {copied.scores} have become {given.scores}")


def scoring_is_asked_soundly(pruner: Pruner) -> None:
    """A scoring is asked for blocks that exist, that may go, and that leave a model."""
    for budget in BUDGETS:
        scoring = _Scoring()
        _plan(pruner, budget, scoring)
        for removed in scoring.asked:
            require(_is_sound(removed), f"it asks for the scores without the blocks {_listed(removed)} of {NUM_BLOCKS}")
            chosen = set(removed).difference(budget.forced)
            kept = budget.protected.isdisjoint(touched_by(chosen))
            require(kept, f"it asks for scores without a protected block: {_listed(removed)}")


def _is_sound(removed: Sequence[Step]) -> bool:
    """Whether steps exist, can be taken one after the other, and leave a model."""
    with suppress(OptionError):
        return len(checked_steps(removed, NUM_BLOCKS)) < NUM_BLOCKS
    return False


def _listed(steps: Iterable[Step]) -> str:
    return f"[{', '.join(map(str, steps))}]"


def plans_are_nested(pruner: Pruner) -> None:
    """As `nested` declares, a plan for fewer blocks is the start of a plan for more."""
    for forced in ((), (4,), ("1/2",)):
        plans = [_plan(pruner, Budget.exactly(count, NUM_BLOCKS, forced=forced)) for count in range(1, NUM_BLOCKS)]
        orders = [plan.blocks for plan in plans if plan is not None]
        for fewer, more in pairwise(orders):
            require(more[: len(fewer)] == fewer, f"the plan {more} does not begin with the plan {fewer}")


def pruner_contracts(pruner: Pruner) -> dict[str, Callable[[Any], None]]:
    """The contracts that a pruner has to keep, by name."""
    chosen: dict[str, Callable[[Any], None]] = {
        "the budget is kept": budget_is_kept,
        "plans are repeatable": plans_are_repeatable,
        "scores stay as they are": scores_stay,
        "scoring is asked soundly": scoring_is_asked_soundly,
    }
    if pruner.nested:
        chosen["plans are nested"] = plans_are_nested
    return chosen

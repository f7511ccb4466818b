"""The contracts of a pruner, checked on made-up scores."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import pairwise
from typing import Any

from layerimp.errors import LayerimpError, OptionError
from layerimp.pruner import Budget, PrunePlan, Pruner
from layerimp.scorer import Importance
from layerimp.steps import Cuts, Step, candidates, checked_steps, sublayers_of, touched_by
from layerimp.testing.assertions import require

NUM_BLOCKS = 6
SCORES = (5.0, 1.0, 3.0, 2.0, 4.0, 0.5)
SEAM = 0.05
"""The score of a seam exceeds that of the weaker block beside it by this amount, so that weak steps overlap."""
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


SEAM_BUDGETS = (
    *(Budget.exactly(budget.count, NUM_BLOCKS, forced=budget.forced, cuts="all") for budget in BUDGETS[:3]),
    Budget.exactly(2, NUM_BLOCKS, protect=(0, 5), cuts="all"),
    Budget.exactly(4, NUM_BLOCKS, protect=(2,), cuts="all"),
    Budget.exactly(3, NUM_BLOCKS, protect=(1,), forced=(4,), cuts="all"),
    Budget.exactly(3, NUM_BLOCKS, forced=("1/2",), cuts="all"),
    Budget.exactly(NUM_BLOCKS - 1, NUM_BLOCKS, forced=(0, "4/5"), cuts="all"),
)
CASES: Mapping[Cuts, Sequence[Budget]] = {"blocks": BUDGETS, "all": SEAM_BUDGETS}
"""The budgets to try, if only blocks or also seams are scored."""


class _Scoring:
    """Gives made-up scores, which change a little with the removed steps, and records each request."""

    def __init__(self, cuts: Cuts) -> None:
        self.cuts = cuts
        self.asked: list[tuple[Step, ...]] = []
        self.given: list[tuple[Importance, Importance]] = []

    def __call__(self, removed: Sequence[Step]) -> Importance:
        self.asked.append(tuple(removed))
        touched = touched_by(removed)
        steps = sorted((step for series in candidates(removed, NUM_BLOCKS, self.cuts) for step in series), key=_depth)
        scores = [_score(step) + 0.25 * sum(other < sublayers_of(step)[0].block for other in touched) for step in steps]
        importance = Importance(scores=scores, blocks=steps)
        self.given.append((importance, copy.deepcopy(importance)))
        return importance


def _depth(step: Step) -> int:
    return sublayers_of(step)[0].depth


def _score(step: Step) -> float:
    first, second = (SCORES[part.block] for part in sublayers_of(step))
    return first if isinstance(step, int) else min(first, second) + SEAM


def _plan(pruner: Pruner, budget: Budget, scoring: _Scoring) -> PrunePlan | None:
    """Return a plan, or None if the pruner says that no plan exists."""
    try:
        plan = type(pruner)(pruner.config).plan(scoring, budget)
    except LayerimpError as error:
        easy = not budget.forced and not budget.protected and budget.count < 3
        require(not easy, f"it refuses to remove {budget.count} of {NUM_BLOCKS} blocks: {error}")
        return None
    require(isinstance(plan, PrunePlan), f"plan() gives {type(plan).__name__}, not a PrunePlan")
    return plan


def budget_is_kept(pruner: Pruner, cuts: Cuts) -> None:
    """A plan has as many steps as the budget says, all forced steps among them, and no other protected blocks."""
    for budget in CASES[cuts]:
        if (plan := _plan(pruner, budget, _Scoring(cuts))) is None:
            continue
        require(plan.num_blocks == NUM_BLOCKS, f"the plan is for {plan.num_blocks} blocks, the model has {NUM_BLOCKS}")
        taken, chosen = plan.blocks, set(plan.blocks).difference(budget.forced)
        require(len(taken) == budget.count, f"{len(taken)} blocks go where the budget says {budget.count}")
        kept = budget.protected.isdisjoint(touched_by(chosen))
        require(kept, f"a block goes that the budget protects: {_listed(taken)}")
        require(set(taken).issuperset(budget.forced), f"a block stays that the budget forces out: {_listed(taken)} go")


def plans_are_repeatable(pruner: Pruner, cuts: Cuts) -> None:
    """The same scores and budget give the same plan."""
    for budget in CASES[cuts][:3]:
        first, second = (_plan(pruner, budget, _Scoring(cuts)) for _ in range(2))
        require(first == second, f"removing {budget.count} blocks it plans {second} after {first}")


def scores_stay(pruner: Pruner, cuts: Cuts) -> None:
    """The scores that a scoring returned are not changed, since the report shows them."""
    for budget in CASES[cuts][:3]:
        scoring = _Scoring(cuts)
        _plan(pruner, budget, scoring)
        for given, copied in scoring.given:
            require(given == copied, f"the scores {copied.scores} have become {given.scores}")


def scoring_is_asked_soundly(pruner: Pruner, cuts: Cuts) -> None:
    """A scoring is asked only for steps that exist, that may be removed, and that leave a model."""
    for budget in CASES[cuts]:
        scoring = _Scoring(cuts)
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


def plans_are_nested(pruner: Pruner, cuts: Cuts) -> None:
    """If the pruner declares `nested`, a plan for fewer blocks is the start of a plan for more."""
    for forced in ((), (4,), ("1/2",)):
        budgets = [Budget.exactly(count, NUM_BLOCKS, forced=forced, cuts=cuts) for count in range(1, NUM_BLOCKS)]
        plans = [_plan(pruner, budget, _Scoring(cuts)) for budget in budgets]
        orders = [plan.blocks for plan in plans if plan is not None]
        for fewer, more in pairwise(orders):
            require(more[: len(fewer)] == fewer, f"the plan {more} does not begin with the plan {fewer}")


def seams_are_cut(pruner: Pruner) -> None:
    """If the pruner declares `cuts_seams`, all contracts also hold if seams can be taken."""
    for contract in _contracts(pruner).values():
        contract(pruner, "all")


def _contracts(pruner: Pruner) -> dict[str, Callable[[Pruner, Cuts], None]]:
    """Return the contracts that hold for blocks as well as for seams."""
    chosen: dict[str, Callable[[Pruner, Cuts], None]] = {
        "the budget is kept": budget_is_kept,
        "plans are repeatable": plans_are_repeatable,
        "scores stay as they are": scores_stay,
        "scoring is asked soundly": scoring_is_asked_soundly,
    }
    if pruner.nested:
        chosen["plans are nested"] = plans_are_nested
    return chosen


def _on_blocks(contract: Callable[[Pruner, Cuts], None], pruner: Pruner) -> None:
    contract(pruner, "blocks")


def pruner_contracts(pruner: Pruner) -> dict[str, Callable[[Any], None]]:
    """Return the contracts that a pruner has to keep, by name."""
    named: dict[str, Callable[[Any], None]] = {
        name: partial(_on_blocks, contract) for name, contract in _contracts(pruner).items()
    }
    if pruner.cuts_seams:
        named["seams are cut"] = seams_are_cut
    return named

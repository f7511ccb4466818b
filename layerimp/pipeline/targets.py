"""How many blocks have to go for a size: by arithmetic on plans, and by measuring where a latency is asked for."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from layerimp.blocks.halves import halves_of
from layerimp.errors import ModelError, OptionError, SurgeryError
from layerimp.models.sizing import ledger_of
from layerimp.pipeline.latency import Clock
from layerimp.pruner import Budget, counted
from layerimp.sizes.targets import UNITS, Quantity, Reached, Target, read_targets
from layerimp.steps import removed_by, touched_by

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from layerimp.blocks.stack import BlockStack
    from layerimp.progress import Progress
    from layerimp.pruner import PrunePlan
    from layerimp.recipe import Recipe
    from layerimp.sizes.ledger import Ledger

Ask = Callable[[Budget], "PrunePlan"]
"""Makes the plan for a budget."""
LATENCY: Quantity = "latency"


@dataclass(frozen=True)
class Goal:
    """What a recipe's targets demand of every plan.

    Attributes:
        targets: The targets.
        limits: The largest value that each allows, in the same order.
        ledger: What the parts of the model amount to.
        intact: What the intact model amounts to, by quantity.
        budget: The budget of the shortest plan that can hold, by arithmetic.
        recipe: The recipe.
        clock: Measures latencies; None where none is asked for.
    """

    targets: list[Target]
    limits: list[float]
    ledger: Ledger
    intact: dict[Quantity, float]
    budget: Budget
    recipe: Recipe
    clock: Clock | None

    @classmethod
    def of(cls, recipe: Recipe, stack: BlockStack, tokenizer: PreTrainedTokenizerBase, progress: Progress) -> Goal:
        """What a recipe demands of a model, of which nothing is scored yet.

        Raises:
            ModelError: the model keeps no cache whose size could be asked for, or its blocks cannot be divided.
            OptionError: nothing has to go, or no removal goes far enough; names the least that is possible.
        """
        targets = read_targets(recipe.targets)
        ledger = ledger_of(stack, halves_of(stack, _divided(recipe, len(stack))))
        timed = any(one.quantity == LATENCY for one in targets)
        clock = Clock(recipe, stack, tokenizer, progress) if timed else None
        whole = ledger.left(())
        intact = {
            one.quantity: clock(()).value if clock and one.quantity == LATENCY else whole.of(one.quantity)
            for one in targets
        }
        limits = [one.limit(intact[one.quantity]) for one in targets]
        budget = _budget(recipe, max(1, len(recipe.blocks)), len(stack))
        goal = cls(targets, limits, ledger, intact, budget, recipe, clock)
        goal._refuse(type(stack.model).__name__)
        return goal

    @classmethod
    def by_arithmetic(cls, recipe: Recipe, ledger: Ledger, kind: str) -> Goal:
        """The same of a model that nothing can be measured on; a latency is left out.

        Raises:
            ModelError: such a model keeps no cache whose size could be asked for.
            OptionError: nothing has to go, or no removal goes far enough.
        """
        targets = [one for one in read_targets(recipe.targets) if one.quantity != LATENCY]
        intact = {one.quantity: ledger.left(()).of(one.quantity) for one in targets}
        limits = [one.limit(intact[one.quantity]) for one in targets]
        budget = _budget(recipe, max(1, len(recipe.blocks)), ledger.num_blocks)
        goal = cls(targets, limits, ledger, intact, budget, recipe, None)
        goal._refuse(kind)
        return goal

    def fewest(self, *, lightest: bool = False) -> int:
        """The smallest count that can do, by arithmetic; with `lightest` about the one with which every plan does."""
        free = {one for one in self.ledger.sublayers if one.block not in self.budget.protected}
        free |= removed_by(self.budget.forced)
        counts = [self.ledger.fewest(t.quantity, limit, free, lightest=lightest) for t, limit in self._counted()]
        return max(self.budget.count, *counts, 1)

    def _refuse(self, kind: str) -> None:
        """Refuse targets that no removal reaches, or for which nothing has to go."""
        for target, limit in self._counted():
            value = self.intact[target.quantity]
            if math.isnan(value):
                raise ModelError(f"{target}: what {kind} keeps of each token cannot be told block by block")
            if not value:
                raise ModelError(f"{target}: {kind} keeps nothing of the tokens that it has read")
            least = self.ledger.least(
                target.quantity, self.budget.protected, removed_by(self.budget.forced), self.recipe.cuts
            )
            if least.of(target.quantity) > limit:
                unit, outside = UNITS[target.quantity], self.ledger.outside.of(target.quantity)
                raise OptionError(
                    f"no removal reaches {target} ({_told(limit)} {unit}): at least {_told(least.of(target.quantity))} "
                    f"stay, of which {_told(outside)} are embeddings, head and what else lies outside the blocks"
                )
        if (
            self.targets
            and not self.recipe.blocks
            and all(self.intact[t.quantity] <= limit for t, limit in self._all())
        ):
            values = ", ".join(
                f"{t} (it has {_told(self.intact[t.quantity])} {UNITS[t.quantity]})" for t in self.targets
            )
            raise OptionError(f"nothing has to go: the intact model is within {values}; ask for less")

        if self.clock is not None:
            self._refuse_slow(self.clock)

    def _refuse_slow(self, clock: Clock) -> None:
        """Refuse a latency that the model has not even where as many blocks are gone as can be.

        Which blocks these are matters little. Where the ones that are tried cannot go, or the noise leaves room, the
        plans will show.
        """
        rest = [block for block in reversed(range(self.budget.num_blocks)) if block not in self.budget.protected]
        free = [block for block in rest if block not in touched_by(self.budget.forced)]
        steps = [*self.budget.forced, *free][: self.budget.most]
        with suppress(SurgeryError):
            metric, limit = clock(steps), self._limit(LATENCY)
            if metric.value - 2 * (metric.stderr or 0) > limit:
                raise OptionError(self._too_slow(len(steps), metric.value))

    def _too_slow(self, count: int, least: float) -> str:
        return (
            f"no removal reaches {LATENCY}={self.recipe.targets[LATENCY]} ({self._limit(LATENCY):.3g} ms): without "
            f"{counted(count)} of {self.budget.num_blocks} a forward takes {least:.3g} ms, of "
            f"{self.intact[LATENCY]:.3g} ms intact"
        )

    def _limit(self, quantity: Quantity) -> float:
        return next(limit for target, limit in self._all() if target.quantity == quantity)

    def _all(self) -> list[tuple[Target, float]]:
        return list(zip(self.targets, self.limits, strict=True))

    def _counted(self) -> list[tuple[Target, float]]:
        """The targets that arithmetic decides, with their limits."""
        return [(target, limit) for target, limit in self._all() if target.quantity != LATENCY]

    def reached(self, ask: Ask) -> tuple[PrunePlan, list[Reached]]:
        """The shortest plan with which all targets hold, and how it stands to them.

        Arithmetic says from how many steps on a plan can hold. From there on longer and longer plans are asked for. A
        latency is then taken to fall with the number of steps.

        Raises:
            OptionError: the pruner cannot go on before the targets hold, or no plan is fast enough.
        """
        plans, count = _Plans(self, ask), self.fewest()
        while not self._holds(plans.of(count)):
            count += 1
        if self.clock is not None:
            count = self._fast_enough(plans, count, self.clock)
        return plans.of(count), [self._stand(plans, count, *one) for one in self._all()]

    def _holds(self, plan: PrunePlan) -> bool:
        """Whether all that arithmetic decides holds with a plan."""
        left = self.ledger.left(removed_by(plan.blocks))
        return all(left.of(target.quantity) <= limit for target, limit in self._counted())

    def _fast_enough(self, plans: _Plans, least: int, clock: Clock) -> int:
        """The smallest count, from `least` on, that is measured to be fast enough: each measurement is interpolated."""
        limit = self._limit(LATENCY)
        intact, most, blocks = self.intact[LATENCY], self.budget.most, self.ledger.num_blocks

        def fits(count: int) -> bool:
            return self._holds(plans.of(count)) and clock(plans.of(count).blocks).value <= limit

        slow, count = least - 1, max(least, min(most, math.ceil(blocks * (1 - limit / intact))))
        while not fits(count):
            now = clock(plans.of(count).blocks).value
            if count == most:
                raise OptionError(self._too_slow(most, now))
            slow, saved = count, (intact - now) / count
            guess = math.ceil((intact - limit) / saved) if saved > 0 else most
            count = min(max(guess, slow + 1), slow + math.ceil((most - slow) / 2))
        while count - slow > 1:
            middle = (slow + count) // 2
            count, slow = (middle, slow) if fits(middle) else (count, middle)
        return count

    def _stand(self, plans: _Plans, count: int, target: Target, limit: float) -> Reached:
        """How the plan of a count stands to a target, and what one step less or more comes to."""

        def value(plan: PrunePlan | None) -> float | None:
            if plan is None:
                return None
            if target.quantity != LATENCY:
                return self.ledger.left(removed_by(plan.blocks)).of(target.quantity)
            metric = self.clock and self.clock.known(plan.blocks)
            return metric.value if metric else None

        intact, plan = self.intact[target.quantity], plans.of(count)
        now = value(plan)
        assert now is not None
        error = self.clock(plan.blocks).stderr if self.clock and target.quantity == LATENCY else None
        less = intact if count == 1 else value(plans.around(count - 1))
        return Reached(target, limit, intact, now, error, less, value(plans.around(count + 1)))


@dataclass
class _Plans:
    """The plans of one scorer, by count, each made once."""

    goal: Goal
    ask: Ask
    made: dict[int, PrunePlan] = field(default_factory=dict)

    def of(self, count: int) -> PrunePlan:
        """The plan for a count.

        Raises:
            OptionError: the budget, or the pruner, does not go so far.
        """
        if count not in self.made:
            try:
                self.made[count] = self.ask(_budget(self.goal.recipe, count, self.goal.ledger.num_blocks))
            except OptionError as error:
                asked = ", ".join(map(str, self.goal.targets))
                raise OptionError(
                    f"{asked} is not reached before {counted(count)} would have to go: {error}"
                ) from error
        return self.made[count]

    def around(self, count: int) -> PrunePlan | None:
        """The plan for a count beside the one that was chosen; None where there is none."""
        try:
            return self.of(count)
        except OptionError:
            return None


def _divided(recipe: Recipe, num_blocks: int) -> set[int]:
    """The blocks of which a half may go."""
    if recipe.cuts == "all":
        return set(range(num_blocks))
    return set(touched_by(step for step in recipe.blocks if isinstance(step, str)))


def _budget(recipe: Recipe, count: int, num_blocks: int) -> Budget:
    """The recipe's budget for a count."""
    return Budget.exactly(count, num_blocks, protect=recipe.protect, forced=recipe.blocks, cuts=recipe.cuts)


def _told(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.4g}"

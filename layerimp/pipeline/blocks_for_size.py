"""How many blocks a target size requires to be removed: by arithmetic on plans, or for a latency by measuring."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
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
    """What a recipe's targets require of every plan.

    Attributes:
        targets: The targets.
        limits: The largest value that each target allows, in the same order.
        ledger: The sizes of the model's parts.
        intact: The values of the intact model, by quantity.
        budget: The budget of the shortest plan that can meet the targets, by arithmetic.
        recipe: The recipe.
        clock: Measures latencies; None if no latency is asked for.
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
        """Make the goal of a recipe for a model, before anything is scored.

        Raises:
            ModelError: a target limits the KV cache but the size of the model's cache is not known, or the model's
                blocks cannot be divided.
            OptionError: the intact model meets all targets, or no removal meets them; then the error names the smallest
                possible value. Or a target limits the latency of an offloaded model.
        """
        targets = read_targets(recipe.targets)
        ledger = ledger_of(stack, halves_of(stack, _divided(recipe, len(stack))))
        timed = _timed(targets, offloaded=stack.offloaded)
        clock = Clock(recipe, stack, tokenizer, progress) if timed else None
        whole = ledger.left(())
        intact = {
            target.quantity: clock(()).value if clock and target.quantity == LATENCY else whole.of(target.quantity)
            for target in targets
        }
        limits = [target.limit(intact[target.quantity]) for target in targets]
        budget = _budget(recipe, max(1, len(recipe.blocks)), len(stack))
        goal = cls(targets, limits, ledger, intact, budget, recipe, clock)
        goal._refuse(type(stack.model).__name__)
        return goal

    @classmethod
    def by_arithmetic(cls, recipe: Recipe, ledger: Ledger, kind: str, *, offloaded: bool) -> Goal:
        """Make the goal of a recipe without a model to measure, so that a latency is left out; see `of`.

        Args:
            recipe: The recipe.
            ledger: The sizes of the model's parts.
            kind: What the model is called in errors.
            offloaded: Whether the model will be offloaded.

        Raises:
            ModelError: a target limits the KV cache, but the size of such a model's cache is not known.
            OptionError: the intact model meets all targets, or no removal meets them. Or a target limits the latency of
                an offloaded model.
        """
        named = read_targets(recipe.targets)
        _timed(named, offloaded=offloaded)
        targets = [target for target in named if target.quantity != LATENCY]
        intact = {target.quantity: ledger.left(()).of(target.quantity) for target in targets}
        limits = [target.limit(intact[target.quantity]) for target in targets]
        budget = _budget(recipe, max(1, len(recipe.blocks)), ledger.num_blocks)
        goal = cls(targets, limits, ledger, intact, budget, recipe, None)
        goal._refuse(kind)
        return goal

    def fewest(self, *, lightest: bool = False) -> int:
        """The smallest count that can meet the targets, by arithmetic.

        Args:
            lightest: Whether to assume that the lightest blocks are removed, so that nearly any plan of this count will
                meet the targets.
        """
        free = {part for part in self.ledger.sublayers if part.block not in self.budget.protected}
        free |= removed_by(self.budget.forced)
        counts = [self.ledger.fewest(t.quantity, limit, free, lightest=lightest) for t, limit in self._counted()]
        return max(self.budget.count, *counts, 1)

    def _refuse(self, kind: str) -> None:
        """Refuse targets that no removal meets, or that the intact model already meets."""
        for target, limit in self._counted():
            value = self.intact[target.quantity]
            if math.isnan(value):
                raise ModelError(f"{target}: the size of the cache of {kind} is not known by block")
            if not value:
                raise ModelError(f"{target}: {kind} keeps nothing of the tokens that it has read")
            least = self.ledger.least(
                target.quantity, self.budget.protected, removed_by(self.budget.forced), self.recipe.cuts
            )
            if least.of(target.quantity) > limit:
                unit, outside = UNITS[target.quantity], self.ledger.outside.of(target.quantity)
                smallest = _shown(least.of(target.quantity))
                raise OptionError(
                    f"no removal reaches {target} ({_shown(limit)} {unit}): at least {smallest} stay, of which "
                    f"{_shown(outside)} are embeddings, head and what else lies outside the blocks"
                )
        if (
            self.targets
            and not self.recipe.blocks
            and all(self.intact[t.quantity] <= limit for t, limit in self._all())
        ):
            values = ", ".join(
                f"{t} (it has {_shown(self.intact[t.quantity])} {UNITS[t.quantity]})" for t in self.targets
            )
            raise OptionError(f"nothing has to go: the intact model is within {values}; ask for less")

        if self.clock is not None:
            self._refuse_slow(self.clock)

    def _refuse_slow(self, clock: Clock) -> None:
        """Refuse a latency that the model does not reach even with as many blocks removed as possible.

        It matters little which blocks these are. If the blocks that are tried cannot be removed, or the result is
        within the noise, the target is not refused here; the plans will show whether it can be met.
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
        """The targets that are decided by arithmetic, with their limits."""
        return [(target, limit) for target, limit in self._all() if target.quantity != LATENCY]

    def reached(self, ask: Ask) -> tuple[PrunePlan, list[Reached]]:
        """Return the shortest plan that meets all targets, and its values beside the targets.

        Arithmetic gives the least number of steps that can be enough. From there on, longer and longer plans are asked
        for. A latency is assumed to fall with the number of steps.

        Raises:
            OptionError: the pruner has no longer plan and the targets are not met, or no plan is fast enough.
        """
        plans, count = _Plans(self, ask), self.fewest()
        while not self._holds(plans.of(count)):
            count += 1
        if self.clock is not None:
            count = self._fast_enough(plans, count, self.clock)
        return plans.of(count), [self._reached(plans, count, *each) for each in self._all()]

    def _holds(self, plan: PrunePlan) -> bool:
        """Whether a plan meets all targets that are decided by arithmetic."""
        left = self.ledger.left(removed_by(plan.blocks))
        return all(left.of(target.quantity) <= limit for target, limit in self._counted())

    def _fast_enough(self, plans: _Plans, least: int, clock: Clock) -> int:
        """Find the smallest count, from `least` on, that is fast enough, by measuring at interpolated counts."""
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

    def _reached(self, plans: _Plans, count: int, target: Target, limit: float) -> Reached:
        """Return the value of a count's plan beside a target, and the values with one step less and one step more."""

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
        less = intact if count == 1 else value(plans.beside(count - 1))
        return Reached(target, limit, intact, now, error, less, value(plans.beside(count + 1)))


@dataclass
class _Plans:
    """The plans of one scorer by count, each made once."""

    goal: Goal
    ask: Ask
    known: dict[int, PrunePlan] = field(default_factory=dict)

    def of(self, count: int) -> PrunePlan:
        """Return the plan for a count.

        Raises:
            OptionError: the budget or the pruner does not allow so many steps.
        """
        if count not in self.known:
            try:
                self.known[count] = self.ask(_budget(self.goal.recipe, count, self.goal.ledger.num_blocks))
            except OptionError as error:
                asked = ", ".join(map(str, self.goal.targets))
                raise OptionError(
                    f"{asked} is not reached before {counted(count)} would have to go: {error}"
                ) from error
        return self.known[count]

    def beside(self, count: int) -> PrunePlan | None:
        """Return the plan for a count next to the chosen one; None if there is none."""
        try:
            return self.of(count)
        except OptionError:
            return None


def _timed(targets: Sequence[Target], *, offloaded: bool) -> Target | None:
    """Return the target that limits the latency; None without one.

    Raises:
        OptionError: there is one, and the model is offloaded.
    """
    latency = next((target for target in targets if target.quantity == LATENCY), None)
    if latency and offloaded:
        raise OptionError(f"{latency}: a latency is measured on a whole model in memory, and this one is offloaded")
    return latency


def _divided(recipe: Recipe, num_blocks: int) -> set[int]:
    """Return the blocks of which one half may be removed."""
    if recipe.cuts == "all":
        return set(range(num_blocks))
    return set(touched_by(step for step in recipe.blocks if isinstance(step, str)))


def _budget(recipe: Recipe, count: int, num_blocks: int) -> Budget:
    """Return the recipe's budget for a count."""
    return Budget.exactly(count, num_blocks, protect=recipe.protect, forced=recipe.blocks, cuts=recipe.cuts)


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.4g}"

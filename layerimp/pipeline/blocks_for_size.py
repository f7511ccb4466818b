"""How many blocks a target size requires to be removed: by arithmetic on plans, or for a latency by measuring."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING

from layerimp.blocks.halves import halves_of
from layerimp.defaults import FOOTPRINT, ORIGINAL
from layerimp.errors import ModelError, OptionError, SurgeryError
from layerimp.evaluation.runner import Evaluation
from layerimp.evaluation.selection import prepared
from layerimp.models.sizing import language_model, ledger_of
from layerimp.pipeline.outline import alike
from layerimp.pipeline.resolve import budget_for, budget_of
from layerimp.pruner import Budget, counted
from layerimp.recipe import ComponentSpec, Permissions
from layerimp.report.words import amount
from layerimp.sizes.targets import UNITS, Quantity, Reached, Target, read_targets
from layerimp.steps import removed_by, touched_by
from layerimp.surgery.removal import prepare

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from layerimp.blocks.stack import BlockStack
    from layerimp.evaluator import Evaluator
    from layerimp.metric import Metric
    from layerimp.progress import Progress
    from layerimp.pruner import PrunePlan
    from layerimp.recipe import Recipe
    from layerimp.sizes.ledger import Ledger
    from layerimp.steps import Step

Ask = Callable[[Budget], "PrunePlan"]
"""Makes the plan for a budget."""
Plans = Callable[[int], "PrunePlan"]
"""Gives the plan of one scorer for a count."""
LATENCY: Quantity = "latency"


@dataclass(frozen=True)
class Goal:
    """What a recipe's targets require of every plan.

    Attributes:
        limits: The targets, each with the largest value that it allows.
        ledger: The sizes of the model's parts.
        intact: The values of the intact model, by quantity.
        budget: The budget of the shortest plan that can meet the targets, by arithmetic.
        recipe: The recipe.
        clock: Measures latencies; None if no latency is asked for.
    """

    limits: dict[Target, float]
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
        ledger = ledger_of(stack, halves_of(stack, _divided(recipe, len(stack))))
        if language := language_model(stack):
            whole, own = ledger.left(()).parameters, language.parameters
            progress.note(f"targets count the whole model; its language model has {own:,} of {whole:,} parameters")
        timed = LATENCY in recipe.targets and not stack.offloaded
        clock = Clock(recipe, stack, tokenizer, progress) if timed else None
        return cls.by_arithmetic(recipe, ledger, type(stack.model).__name__, offloaded=stack.offloaded, clock=clock)

    @classmethod
    def by_arithmetic(
        cls, recipe: Recipe, ledger: Ledger, kind: str, *, offloaded: bool, clock: Clock | None = None
    ) -> Goal:
        """Make the goal of a recipe from the sizes of a model's parts; see `of`.

        Args:
            recipe: The recipe.
            ledger: The sizes of the model's parts.
            kind: What the model is called in errors.
            offloaded: Whether the model is or will be offloaded.
            clock: Measures latencies; without one a latency is left out.

        Raises:
            ModelError: a target limits the KV cache, but the size of such a model's cache is not known.
            OptionError: the intact model meets all targets, or no removal meets them. Or a target limits the latency of
                an offloaded model.
        """
        named, whole = read_targets(recipe.targets), ledger.left(())
        if offloaded and (latency := next((each for each in named if each.quantity == LATENCY), None)):
            raise OptionError(f"{latency}: a latency is measured on a whole model in memory, and this one is offloaded")
        targets = [target for target in named if clock or target.quantity != LATENCY]
        intact = {
            target.quantity: clock(()).value if clock and target.quantity == LATENCY else whole.of(target.quantity)
            for target in targets
        }
        limits = {target: target.limit(intact[target.quantity]) for target in targets}
        goal = cls(limits, ledger, intact, budget_of(recipe, ledger.num_blocks), recipe, clock)
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
                smallest = amount(least.of(target.quantity))
                raise OptionError(
                    f"no removal reaches {target} ({amount(limit)} {unit}): at least {smallest} stay, of which "
                    f"{amount(outside)} are embeddings, head and what else lies outside the blocks"
                )
        met = all(self.intact[target.quantity] <= limit for target, limit in self.limits.items())
        if self.limits and met and not self.recipe.blocks:
            values = ", ".join(
                f"{t} (it has {amount(self.intact[t.quantity])} {UNITS[t.quantity]})" for t in self.limits
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
            metric, limit = clock(steps), self._latency_limit
            if metric.value - 2 * (metric.stderr or 0) > limit:
                raise OptionError(self._too_slow(len(steps), metric.value))

    def _too_slow(self, count: int, least: float) -> str:
        return (
            f"no removal reaches {LATENCY}={self.recipe.targets[LATENCY]} ({self._latency_limit:.3g} ms): without "
            f"{counted(count)} of {self.budget.num_blocks} a forward takes {least:.3g} ms, of "
            f"{self.intact[LATENCY]:.3g} ms intact"
        )

    @property
    def _latency_limit(self) -> float:
        return next(limit for target, limit in self.limits.items() if target.quantity == LATENCY)

    def _counted(self) -> list[tuple[Target, float]]:
        """The targets that are decided by arithmetic, with their limits."""
        return [(target, limit) for target, limit in self.limits.items() if target.quantity != LATENCY]

    def reached(self, ask: Ask) -> tuple[PrunePlan, list[Reached]]:
        """Return the shortest plan that meets all targets, and its values beside the targets.

        Arithmetic gives the least number of steps that can be enough. From there on, longer and longer plans are asked
        for. A latency is assumed to fall with the number of steps.

        Raises:
            OptionError: the pruner has no longer plan and the targets are not met, or no plan is fast enough.
        """
        plan_for, count = cache(partial(self._plan, ask)), self.fewest()
        while not self._holds(plan_for(count)):
            count += 1
        if self.clock is not None:
            count = self._fast_enough(plan_for, count, self.clock)
        return plan_for(count), [self._reached(plan_for, count, *each) for each in self.limits.items()]

    def _plan(self, ask: Ask, count: int) -> PrunePlan:
        """Ask for the plan for a count.

        Raises:
            OptionError: the budget or the pruner does not allow so many steps.
        """
        try:
            return ask(budget_for(self.recipe, count, self.ledger.num_blocks))
        except OptionError as error:
            targets = ", ".join(map(str, self.limits))
            raise OptionError(f"{targets} is not reached before {counted(count)} would have to go: {error}") from error

    def _holds(self, plan: PrunePlan) -> bool:
        """Whether a plan meets all targets that are decided by arithmetic."""
        left = self.ledger.left(removed_by(plan.blocks))
        return all(left.of(target.quantity) <= limit for target, limit in self._counted())

    def _fast_enough(self, plan_for: Plans, least: int, clock: Clock) -> int:
        """Find the smallest count, from `least` on, that is fast enough, by measuring at interpolated counts."""
        limit = self._latency_limit
        intact, most, blocks = self.intact[LATENCY], self.budget.most, self.ledger.num_blocks

        def fits(count: int) -> bool:
            return self._holds(plan_for(count)) and clock(plan_for(count).blocks).value <= limit

        slow, count = least - 1, max(least, min(most, math.ceil(blocks * (1 - limit / intact))))
        while not fits(count):
            now = clock(plan_for(count).blocks).value
            if count == most:
                raise OptionError(self._too_slow(most, now))
            slow, saved = count, (intact - now) / count
            guess = math.ceil((intact - limit) / saved) if saved > 0 else most
            count = min(max(guess, slow + 1), slow + math.ceil((most - slow) / 2))
        while count - slow > 1:
            middle = (slow + count) // 2
            count, slow = (middle, slow) if fits(middle) else (count, middle)
        return count

    def _reached(self, plan_for: Plans, count: int, target: Target, limit: float) -> Reached:
        """Return the value of a count's plan beside a target, and the values with one step less and one step more."""

        def value(count: int) -> float | None:
            try:
                blocks = plan_for(count).blocks
            except OptionError:
                return None
            if target.quantity != LATENCY:
                return self.ledger.left(removed_by(blocks)).of(target.quantity)
            metric = self.clock and self.clock.known(blocks)
            return metric.value if metric else None

        intact, now = self.intact[target.quantity], value(count)
        assert now is not None
        error = self.clock(plan_for(count).blocks).stderr if self.clock and target.quantity == LATENCY else None
        less = intact if count == 1 else value(count - 1)
        return Reached(target, limit, intact, now, error, less, value(count + 1))


def _divided(recipe: Recipe, num_blocks: int) -> set[int]:
    """Return the blocks of which one half may be removed."""
    if recipe.cuts == "all":
        return set(range(num_blocks))
    return set(touched_by(step for step in recipe.blocks if isinstance(step, str)))


class Clock:
    """Measures the latency of a model without some of its blocks, in the same way as the evaluator `footprint`.

    Blocks with the same structure take equally long. So the latency is measured once for each combination of numbers of
    removed blocks per kind, and noise does not distinguish between plans of equal length.

    Args:
        recipe: The recipe, which may have options for `footprint`.
        stack: The model's blocks.
        tokenizer: The model's tokenizer.
        progress: Where to report progress.
    """

    def __init__(
        self, recipe: Recipe, stack: BlockStack, tokenizer: PreTrainedTokenizerBase, progress: Progress
    ) -> None:
        named = (spec for spec in recipe.evaluators.values() if spec.name == FOOTPRINT)
        spec = next(named, ComponentSpec(name=FOOTPRINT))
        alone = recipe.model_copy(update={"evaluators": {FOOTPRINT: spec}})
        self._evaluators: dict[str, Evaluator] = prepared(alone, Permissions(), progress)
        self._evaluation = Evaluation(stack.model, tokenizer, progress)
        self._stack, self._kinds = stack, alike(stack)
        self._measured: dict[object, Metric] = {}

    def __call__(self, steps: Sequence[Step]) -> Metric:
        """Measure the latency in milliseconds of the model without some steps.

        Raises:
            SurgeryError: the steps cannot be removed exactly.
        """
        if (known := self.known(steps)) is not None:
            return known
        with prepare(self._stack, steps).applied():
            who = f"without {counted(len(steps))}" if steps else ORIGINAL
            metrics = self._evaluation.of(self._evaluators, "cost", who)
        metric = self._measured[self._key(steps)] = next(metric for metric in metrics if metric.name == "latency_ms")
        return metric

    def known(self, steps: Sequence[Step]) -> Metric | None:
        """Return the latency measured without as many blocks of the same kinds; None if not measured yet."""
        return self._measured.get(self._key(steps))

    def _key(self, steps: Sequence[Step]) -> object:
        return tuple(sorted((part.part, self._kinds[part.block]) for part in removed_by(steps)))

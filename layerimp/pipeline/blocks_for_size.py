"""How many blocks a target size requires to be removed: by arithmetic on plans."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING

from layerimp.errors import ModelError, OptionError
from layerimp.indices import kept_blocks
from layerimp.models.sizing import language_model, ledger_of
from layerimp.pipeline.resolve import budget_for, budget_of
from layerimp.pruner import Budget, counted
from layerimp.report.words import amount
from layerimp.sizes.targets import UNITS, Quantity, Reached, Target, read_targets

if TYPE_CHECKING:
    from layerimp.blocks.stack import BlockStack
    from layerimp.progress import Progress
    from layerimp.pruner import PrunePlan
    from layerimp.recipe import Recipe
    from layerimp.sizes.ledger import Ledger

Ask = Callable[[Budget], "PrunePlan"]
"""Makes the plan for a budget."""
Plans = Callable[[int], "PrunePlan"]
"""Gives the plan of one scorer for a count."""


@dataclass(frozen=True)
class Goal:
    """What a recipe's targets require of every plan.

    Attributes:
        limits: The targets, each with the largest value that it allows.
        ledger: The sizes of the model's parts.
        intact: The values of the intact model, by quantity.
        budget: The budget of the shortest plan that can meet the targets, by arithmetic.
        recipe: The recipe.
    """

    limits: dict[Target, float]
    ledger: Ledger
    intact: dict[Quantity, float]
    budget: Budget
    recipe: Recipe

    @classmethod
    def of(cls, recipe: Recipe, stack: BlockStack, progress: Progress) -> Goal:
        """Make the goal of a recipe for a model, before anything is scored.

        Raises:
            ModelError: a target limits the KV cache but the size of the model's cache is not known.
            OptionError: the intact model meets all targets, or no removal meets them; then the error names the smallest
                possible value.
        """
        ledger = ledger_of(stack)
        if language := language_model(stack):
            whole, own = ledger.left(()).parameters, language.parameters
            progress.note(f"targets count the whole model; its language model has {own:,} of {whole:,} parameters")
        return cls.by_arithmetic(recipe, ledger, type(stack.model).__name__)

    @classmethod
    def by_arithmetic(cls, recipe: Recipe, ledger: Ledger, kind: str) -> Goal:
        """Make the goal of a recipe from the sizes of a model's parts; see `of`.

        Args:
            recipe: The recipe.
            ledger: The sizes of the model's parts.
            kind: What the model is called in errors.

        Raises:
            ModelError: a target limits the KV cache, but the size of such a model's cache is not known.
            OptionError: the intact model meets all targets, or no removal meets them.
        """
        targets, whole = read_targets(recipe.targets), ledger.left(())
        intact = {target.quantity: whole.of(target.quantity) for target in targets}
        limits = {target: target.limit(intact[target.quantity]) for target in targets}
        goal = cls(limits, ledger, intact, budget_of(recipe, ledger.num_blocks), recipe)
        goal._refuse(kind)
        return goal

    def fewest(self, *, lightest: bool = False) -> int:
        """The smallest count that can meet the targets, by arithmetic.

        Args:
            lightest: Whether to assume that the lightest blocks are removed, so that nearly any plan of this count will
                meet the targets.
        """
        free = kept_blocks(self.budget.protected, self.ledger.num_blocks)
        counts = [self.ledger.fewest(t.quantity, limit, free, lightest=lightest) for t, limit in self.limits.items()]
        return max(self.budget.count, *counts, 1)

    def _refuse(self, kind: str) -> None:
        """Refuse targets that no removal meets, or that the intact model already meets."""
        for target, limit in self.limits.items():
            value = self.intact[target.quantity]
            if math.isnan(value):
                raise ModelError(f"{target}: the size of the cache of {kind} is not known by block")
            if not value:
                raise ModelError(f"{target}: {kind} keeps nothing of the tokens that it has read")
            least = self.ledger.least(target.quantity, self.budget.protected, self.budget.forced)
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

    def reached(self, ask: Ask) -> tuple[PrunePlan, list[Reached]]:
        """Return the shortest plan that meets all targets, and its values beside the targets.

        Arithmetic gives the least number of blocks that can be enough. From there on, longer and longer plans are asked
        for.

        Raises:
            OptionError: the pruner has no longer plan and the targets are not met.
        """
        plan_for, count = cache(partial(self._plan, ask)), self.fewest()
        while not self._holds(plan_for(count)):
            count += 1
        return plan_for(count), [self._reached(plan_for, count, *each) for each in self.limits.items()]

    def _plan(self, ask: Ask, count: int) -> PrunePlan:
        """Ask for the plan for a count.

        Raises:
            OptionError: the budget or the pruner does not allow so many blocks.
        """
        try:
            return ask(budget_for(self.recipe, count, self.ledger.num_blocks))
        except OptionError as error:
            targets = ", ".join(map(str, self.limits))
            raise OptionError(f"{targets} is not reached before {counted(count)} would have to go: {error}") from error

    def _holds(self, plan: PrunePlan) -> bool:
        """Whether a plan meets all targets."""
        left = self.ledger.left(plan.blocks)
        return all(left.of(target.quantity) <= limit for target, limit in self.limits.items())

    def _reached(self, plan_for: Plans, count: int, target: Target, limit: float) -> Reached:
        """Return the value of a count's plan beside a target, and that with one block less.

        With one block more, a search would have to score once more.
        """

        def value(count: int) -> float:
            return self.ledger.left(plan_for(count).blocks).of(target.quantity)

        intact, less = self.intact[target.quantity], None
        with suppress(OptionError):  # fewer blocks than are named cannot go
            less = value(count - 1) if count > 1 else intact
        return Reached(target, limit, intact, value(count), less)

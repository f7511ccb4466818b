"""The contract of a pruner, and the plan that it makes."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, Protocol

from pydantic import Field, ValidationInfo, field_validator

from layerimp._table import Column, Table, Tabular
from layerimp.component import Component, Plain, versioned
from layerimp.errors import OptionError, PluginError
from layerimp.indices import checked_blocks
from layerimp.scorer import Importance


class Scoring(Protocol):
    """Scores the blocks that are left after given removals."""

    def __call__(self, removed: Sequence[int], among: Collection[int] | None = None) -> Importance:
        """Score the model with the blocks `removed` bypassed.

        Args:
            removed: The blocks that are already removed.
            among: The blocks that need a score, to save time; None for all. Other blocks may have one all the same.
        """


class PrunePlan(Plain, Tabular):
    """What to remove, in order of removal. A plan is plain data: it can be saved, read, edited and applied later.

    It is a part of `plan.json`; `layerimp prune --plan` also takes a plan alone.
    """

    schema_version: Literal["layerimp.plan/2"] = versioned("layerimp.plan/2")
    num_blocks: int = Field(ge=1)
    """The number of blocks of the model that the plan is for."""
    blocks: list[int]
    """The indices of the blocks to remove, in order."""
    reason: str = ""
    """Why these blocks were chosen, in words."""
    scorer: str | None = None
    """The scorer whose scores the plan follows, if any."""
    pruner: str | None = None
    """The pruner that made the plan, if any."""
    model: str | None = None
    """The model that the plan was made for: an absolute path, or a name."""
    nested: bool | None = None
    """Whether the first blocks are also the plan for fewer blocks; null if not known."""

    @field_validator("blocks", mode="before")
    @classmethod
    def _sound(cls, blocks: Any, info: ValidationInfo) -> Any:
        count = info.data.get("num_blocks")
        if count is None or not isinstance(blocks, list | tuple):
            return blocks  # which pydantic refuses
        checked = list(checked_blocks(blocks, count))
        if len(checked) >= count:
            raise ValueError(f"a plan that removes all {count} blocks leaves no model")
        return checked

    def _table(self) -> Table:
        """Return a row for each block, in the order of removal."""
        order = list(range(1, len(self.blocks) + 1))
        by = ", ".join(filter(None, (self.scorer, self.pruner)))
        title = f"{by and f'{by}: '}{len(self.blocks)} of {counted(self.num_blocks)}"
        return Table([Column("order", order), Column("removed", self.blocks)], title)

    def blocks_for(self, num_blocks: int) -> list[int]:
        """The blocks of the plan, for a model of so many blocks.

        Raises:
            OptionError: the plan is for a model of another number of blocks.
        """
        if self.num_blocks != num_blocks:
            raise OptionError(f"the plan is for {self.num_blocks} blocks; the model has {num_blocks}")
        return self.blocks

    def shortened(self, count: int) -> PrunePlan:
        """The plan for fewer blocks: the first `count` of this one.

        Raises:
            OptionError: the plan has fewer blocks, or its first are not what the pruner would choose for `count`.
        """
        if not 0 < count <= len(self.blocks):
            raise OptionError(
                f"count {count} is not between 1 and {len(self.blocks)}, the number of blocks of the plan"
            )
        if self.nested is False and count < len(self.blocks):
            raise OptionError(
                f"the plan removes {counted(len(self.blocks))}, and for {count} the pruner {self.pruner} would choose "
                f"anew; run it with --count {count}"
            )
        return self.model_copy(update={"blocks": self.blocks[:count]})


def checked_ratio(ratio: float) -> float:
    """The ratio, if it is a valid share of the blocks.

    Raises:
        OptionError: the ratio is not between 0 and 1; for a whole number the text says how to give a number of blocks.
    """
    if 0 < ratio < 1:
        return ratio
    whole = ratio >= 1 and ratio % 1 == 0
    shown = int(ratio) if whole else ratio
    hint = f"; a number of blocks is given as the count {shown}" if whole else ""
    raise OptionError(f"ratio {shown} is not between 0 and 1{hint}")


def count_of(ratio: float, num_blocks: int) -> int:
    """Ratio x num_blocks, rounded to the nearest whole number; of two equally near numbers the smaller one."""
    return math.ceil(Fraction(str(ratio)) * num_blocks - Fraction(1, 2))


def counted(count: int) -> str:
    """A number of blocks in words: 1 block, 2 blocks."""
    return "1 block" if count == 1 else f"{count} blocks"


@dataclass(frozen=True)
class Budget:
    """How many blocks to remove, which must stay, and which must go.

    Attributes:
        num_blocks: The model's block count.
        count: How many blocks to remove in all, including the forced ones.
        protected: The blocks that must stay.
        forced: The blocks that are removed whatever their score.
    """

    num_blocks: int
    count: int
    protected: frozenset[int] = frozenset()
    forced: tuple[int, ...] = ()

    @property
    def most(self) -> int:
        """The largest count that a budget with the same protected and forced blocks can have."""
        return min(self.num_blocks - 1, self.num_blocks - len(self.protected))

    @classmethod
    def of(
        cls,
        num_blocks: int,
        *,
        ratio: float | None = None,
        count: int | None = None,
        blocks: Sequence[int] = (),
        protect: Sequence[int] = (),
    ) -> Budget:
        """The budget for a pruning ratio or a count, for given blocks, or for both (the blocks are part of the count).

        Args:
            num_blocks: The model's block count.
            ratio: The share of the blocks to remove.
            count: How many blocks to remove, in place of a ratio.
            blocks: The blocks that are removed whatever their score.
            protect: The blocks that stay.

        Raises:
            OptionError: no block or every block would be removed, or the arguments contradict one another.
        """
        forced = checked_blocks(blocks, num_blocks)
        if ratio is not None and count is not None:
            raise OptionError("ratio and count contradict each other; give one of them")
        if ratio is not None:
            count = count_of(checked_ratio(ratio), num_blocks)
            if count == 0:
                least = f"one block needs a ratio above {0.5 / num_blocks:.3g}"
                why = "the model needs it" if num_blocks == 1 else least
                raise OptionError(f"ratio {ratio} of {counted(num_blocks)} rounds to none; {why}")
        if count is None and not forced:
            raise OptionError("nothing is to be removed: give a ratio, a count, or blocks")
        return cls.exactly(len(forced) if count is None else count, num_blocks, protect=protect, forced=forced)

    @classmethod
    def exactly(cls, count: int, num_blocks: int, *, protect: Sequence[int] = (), forced: Sequence[int] = ()) -> Budget:
        """The budget for `count` blocks; see `of`.

        Raises:
            OptionError: no block or every block would be removed, or the blocks contradict one another.
        """
        forced = checked_blocks(forced, num_blocks)
        protected = frozenset(checked_blocks(protect, num_blocks, what="protected block"))
        if both := sorted(protected.intersection(forced)):
            raise OptionError(f"block {both[0]} is both to be removed and protected")
        if len(forced) > count:
            raise OptionError(f"only {counted(count)} would go, but {len(forced)} are named")
        if count < 1:
            raise OptionError(f"of {num_blocks} blocks none would be removed; ask for more")
        free = num_blocks - len(protected)
        if count >= num_blocks:
            most = min(num_blocks - 1, free)
            raise OptionError(f"removing {count} of {num_blocks} blocks leaves no model; at most {most} can go")
        if count > free:
            raise OptionError(
                f"{counted(count)} {'is' if count == 1 else 'are'} to go, but only {free} of {num_blocks} are not "
                "protected"
            )
        return cls(num_blocks, count, protected, forced)


class Pruner(Component):
    """Chooses the blocks to remove.

    A whole plugin with one:

        from layerimp import PrunePlan, Pruner, hookimpl


        class Deepest(Pruner):
            \"\"\"Removes the deepest blocks that may go.\"\"\"

            name = "deepest"

            def plan(self, scoring, budget):
                deepest_first = [*budget.forced, *reversed(range(budget.num_blocks))]
                free = [b for b in dict.fromkeys(deepest_first) if b not in budget.protected]
                return PrunePlan(num_blocks=budget.num_blocks, blocks=free[: budget.count])


        @hookimpl
        def layerimp_pruners():
            return [Deepest]

    Attributes:
        nested: Whether a plan for fewer blocks is always the start of a plan for more, so that one plan serves both. It
            may depend on the options: the class attribute holds for the default options, the attribute of an instance
            for the options of that instance.
        rescored_rows: How many rows of the text a partly pruned model is scored on; None for all. The intact model is
            always scored on all rows. Like `nested`, it may depend on the options.
    """

    nested: bool = False
    rescored_rows: int | None = None

    @abstractmethod
    def plan(self, scoring: Scoring, budget: Budget) -> PrunePlan:
        """Choose `budget.count` blocks.

        Args:
            scoring: Scores the model without the given blocks. A one-shot pruner calls `scoring(())` once; a greedy one
                calls it again after each removal. `Importance.weakest_first` breaks ties.
            budget: How many blocks to remove, which must go, and which must stay.

        Returns:
            The plan: the blocks in order of removal.
        """

    def within_budget(self, scoring: Scoring, budget: Budget) -> PrunePlan:
        """The plan, after a check that it keeps to the budget.

        Raises:
            PluginError: the plan does not keep to the budget, or is no `PrunePlan`.
        """
        plan = self.plan(scoring, budget)
        if not isinstance(plan, PrunePlan):
            raise PluginError(f"plan() gives {type(plan).__name__}, not a PrunePlan")
        missing = set(budget.forced).difference(plan.blocks)
        if len(plan.blocks) != budget.count or missing or budget.protected.intersection(plan.blocks):
            raise PluginError(f"it broke its budget: {counted(budget.count)}, got {plan.blocks}")
        return plan

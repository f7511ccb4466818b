"""The pruner `greedy`: remove one block at a time, and score the remaining blocks again (SLEB, arXiv:2402.09025)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, model_validator

from layerimp import PrunePlan, Pruner, hookimpl
from layerimp.component import Options
from layerimp.errors import OptionError
from layerimp.steps import (
    Cuts,
    Step,
    Sublayer,
    candidates,
    paired,
    removed_by,
    runs_of,
    simplest,
    sublayers_of,
    touched_by,
    weakest_first,
)

if TYPE_CHECKING:
    from layerimp.pruner import Budget, Scoring


class GreedyConfig(Options):
    """The options of `greedy`: the protected ends of the model, and the extent of the search."""

    protect_first: int = Field(0, ge=0, description="The number of first blocks to keep; 1 in SLEB.")
    protect_last: int = Field(0, ge=0, description="The number of last blocks to keep; 1 in SLEB.")
    exchange: int = Field(
        0,
        ge=0,
        description="Before each removal, try to undo an earlier removal and make two others instead. The value is the "
        "number of lowest-scoring steps that are tried as the first of the two; 0 undoes nothing.",
    )
    gap_penalty: float = Field(
        0.0,
        ge=0,
        description="A penalty, in the scorer's unit, that is added to a step's score for each pair of removals that "
        "the step puts into the same gap.",
    )
    rows: int | None = Field(
        None,
        ge=1,
        description="The number of rows of the text to score on after each removal; null: all. The intact model is "
        "scored on all rows, and healers read all rows.",
    )
    rescored: int | None = Field(
        None,
        ge=1,
        description="How many steps to score again after each removal: those with the lowest last scores, and those "
        "beside it. More follow until a new score is the lowest. null: all steps. This saves time with scorers "
        "that run the model for each step, such as divergence and perplexity.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.exchange and self.rescored is not None:
            raise ValueError("exchange compares all scores after each removal, and rescored leaves some out")
        if self.exchange and self.rows is not None:
            raise ValueError("exchange adds up the costs of all steps, and with rows the first is that on another text")
        return self


@dataclass(frozen=True)
class Path:
    """A sequence of removal steps.

    Attributes:
        steps: The steps.
        cost: The total cost: the sum of the steps' scores, each measured when the step was taken.
        exchanges: The number of steps that were undone along the way.
    """

    steps: tuple[Step, ...]
    cost: float = 0.0
    exchanges: int = 0

    def then(self, step: Step, cost: float) -> Path:
        """Return this path with one more step."""
        return Path((*self.steps, step), self.cost + cost, self.exchanges)


class Greedy(Pruner):
    """Removes the block with the lowest score (the deeper of two equals), scores the remaining blocks, and repeats."""

    name = "greedy"
    nested = True
    cuts_seams = True
    reference = "Song et al. 2024 (SLEB), arXiv:2402.09025, algorithm 1; with any scorer"
    Config = GreedyConfig

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self.nested, self.rescored_rows = not self.config.exchange, self.config.rows

    def plan(self, scoring: Scoring, budget: Budget) -> PrunePlan:
        """Take the forced steps first, and then, one at a time, the unprotected step with the lowest score.

        Raises:
            OptionError: a forced step removes a part of a protected block, or too few unprotected steps are left.
        """
        config: GreedyConfig = self.config
        search = Search(scoring, budget, self._stay(budget), config.gap_penalty)
        best = search.greedy() if config.rescored is None else search.lazy(config.rescored)
        reason = "lowest score after each removal"
        if config.exchange and (other := search.exchanging(config.exchange)).cost < best.cost:
            best = other
            reason += f", with {best.exchanges} exchange{'s' * (best.exchanges != 1)}"
        return PrunePlan(num_blocks=budget.num_blocks, blocks=list(best.steps), reason=reason)

    def _stay(self, budget: Budget) -> frozenset[int]:
        """Return the protected blocks."""
        blocks, config = range(budget.num_blocks), self.config
        ends = {*blocks[: config.protect_first], *blocks[len(blocks) - min(config.protect_last, len(blocks)) :]}
        if both := ends & touched_by(budget.forced):
            what = f"block {min(both)}" if min(both) in budget.forced else f"a half of block {min(both)}"
            raise OptionError(f"{what} is to be removed, and protected by protect_first or protect_last")
        return frozenset(ends | budget.protected)


@dataclass
class Search:
    """A search for the steps with the lowest total cost.

    Attributes:
        scoring: Scores the steps that can be taken next.
        budget: The number of steps to take, and the forced steps.
        stay: The blocks from which nothing more may be removed.
        gap_penalty: The penalty added to a step's score for each pair of steps that the step puts into the same gap.

    Raises:
        OptionError: too few unprotected steps are left.
    """

    scoring: Scoring
    budget: Budget
    stay: frozenset[int]
    gap_penalty: float

    def __post_init__(self) -> None:
        self._known: dict[frozenset[Sublayer], dict[Step, float]] = {}
        forced, removed = self.budget.forced, removed_by(self.budget.forced)
        rest = [block for block in range(self.budget.num_blocks) if block not in self.stay]
        free = len(forced) + sum(part not in removed for block in rest for part in sublayers_of(block)) // 2
        if self.budget.count > free:
            blocks = self.budget.num_blocks
            raise OptionError(f"{self.budget.count} blocks are to go, but only {free} of {blocks} are not protected")

    def greedy(self) -> Path:
        """Return the path that takes the step with the lowest cost each time."""
        path = Path(self.budget.forced)
        while len(path.steps) < self.budget.count:
            path = path.then(*self._weakest(path))
        return path

    def lazy(self, rescored: int) -> Path:
        """Return a path that takes the step with the lowest cost each time, without scoring all steps each time.

        Args:
            rescored: The number of steps with the lowest last costs that are scored again after each removal.
        """
        path = Path(self.budget.forced)
        if len(path.steps) >= self.budget.count:
            return path
        costs = self._costs(path.steps)
        cuts: Cuts = "all" if any(isinstance(step, str) for step in costs) else "blocks"
        while True:
            step = next(iter(costs))
            path = path.then(step, costs[step])
            if len(path.steps) == self.budget.count:
                return path
            costs = self._again(path.steps, costs, rescored, cuts)

    def _again(
        self, taken: tuple[Step, ...], last: Mapping[Step, float], rescored: int, cuts: Cuts
    ) -> dict[Step, float]:
        """Return the costs of steps after a removal, in ascending order; the lowest is a new one.

        Args:
            taken: The steps taken, of which the last is new.
            last: The costs before that.
            rescored: The number of steps with the lowest last costs that are scored again.
            cuts: What may be removed.
        """
        steps = [step for series in candidates(taken, self.budget.num_blocks, cuts) for step in series]
        costs = {step: last.get(step, -math.inf) for step in steps if self.stay.isdisjoint(touched_by([step]))}
        new: set[Step] = set()
        ask = [step for step in costs if step not in last or _beside(taken, step)]
        while True:
            waiting = [step for step in weakest_first(costs) if step not in new]
            ask = list(dict.fromkeys([*ask, *waiting[:rescored]]))
            fresh = {step: cost for step, cost in self._scored(taken, ask).items() if step in costs}
            costs |= fresh
            new |= fresh.keys()
            ordered = weakest_first(costs)
            if ordered[0] in new:
                return {step: costs[step] for step in ordered}
            ask = []

    def exchanging(self, tried: int) -> Path:
        """Return the path that, whenever this costs less, undoes one step and takes two others instead.

        Args:
            tried: The number of lowest-cost steps to try as the first of the two.
        """
        path = Path(self.budget.forced)
        while len(path.steps) < self.budget.count:
            following = path.then(*self._weakest(path))
            for other in self._exchanges(path, tried):
                if other.cost < following.cost and removed_by(other.steps) != removed_by(following.steps):
                    following = other
            path = following
        return path

    def _exchanges(self, path: Path, tried: int) -> Iterator[Path]:
        """Yield the paths that undo one step of a path and take two others instead.

        Undoing a step subtracts its score in the model from which every other step of the path is removed. So if the
        scorer measures the rise of the loss, the cost of a path is the rise caused by all its steps together,
        regardless of their order.
        """
        for step, fewer in self._without_one(path.steps):
            costs = self._costs(fewer)
            before = Path(fewer, path.cost - costs[step], path.exchanges + 1)
            for first in [other for other in costs if other != step][:tried]:
                between = before.then(first, costs[first])
                yield between.then(*self._weakest(between))

    def _without_one(self, steps: tuple[Step, ...]) -> Iterator[tuple[Step, tuple[Step, ...]]]:
        """Yield each step that can be undone, with the steps that remain taken without it.

        The same sublayers can be removed by different steps, so the steps of the simplest equivalent removal count too.
        """
        forced, removed = self.budget.forced, removed_by(steps)
        fixed = removed_by(forced)
        for step in dict.fromkeys([*steps, *simplest(steps)]):
            parts = set(sublayers_of(step))
            if fixed.isdisjoint(parts):
                with suppress(OptionError):  # attention and MLP would no longer alternate
                    yield step, (*forced, *paired(removed - parts - fixed, forced))

    def _weakest(self, path: Path) -> tuple[Step, float]:
        """Return the step with the lowest cost after those of a path, and its cost."""
        return next(iter(self._costs(path.steps).items()))

    def _costs(self, taken: Sequence[Step]) -> dict[Step, float]:
        """Return the cost of each step that may be taken next, in ascending order; of equal costs the deeper first."""
        removed = removed_by(taken)
        if removed not in self._known:
            may_go = self._scored(taken)
            self._known[removed] = {step: may_go[step] for step in weakest_first(may_go)}
        return self._known[removed]

    def _scored(self, taken: Sequence[Step], among: Sequence[Step] | None = None) -> dict[Step, float]:
        """Score steps that may be taken next, and return their costs; with `among` at least of these."""
        importance = self.scoring(list(taken)) if among is None else self.scoring(list(taken), among)
        removed = removed_by(taken)
        scores = zip(importance.blocks, importance.scores, strict=True)
        costs = {step: score for step, score in scores if self.stay.isdisjoint(touched_by([step]))}
        if self.gap_penalty:
            before = _sharing(removed)
            for step in costs:
                costs[step] += self.gap_penalty * (_sharing(removed.union(sublayers_of(step))) - before)
        return costs


def _beside(taken: Sequence[Step], step: Step) -> bool:
    """Whether a step lies in one gap with the last of the steps taken."""
    last, parts = sublayers_of(taken[-1])[0], sublayers_of(step)
    return any(last in run and parts[0] in run for run in runs_of(removed_by(taken).union(parts)))


def _sharing(removed: frozenset[Sublayer]) -> int:
    """Return the number of pairs of steps that share a gap."""
    lengths = [len(run) // 2 for run in runs_of(removed)]
    return sum(length * (length - 1) // 2 for length in lengths)


@hookimpl
def layerimp_pruners() -> list[type[Pruner]]:
    """Return this plugin's pruner."""
    return [Greedy]

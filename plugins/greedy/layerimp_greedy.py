"""The pruner `greedy`: remove one block at a time, and score the remaining blocks again (SLEB, arXiv:2402.09025)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, model_validator

from layerimp import PrunePlan, Pruner, hookimpl
from layerimp.component import Options
from layerimp.errors import OptionError
from layerimp.indices import kept_blocks, runs_of, weakest_first

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
        "number of lowest-scoring blocks that are tried as the first of the two; 0 undoes nothing.",
    )
    gap_penalty: float = Field(
        0.0,
        ge=0,
        description="A penalty, in the scorer's unit, that is added to a block's score for each pair of removals "
        "that it puts into the same gap.",
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
        description="How many blocks to score again after each removal: those with the lowest last scores, and those "
        "beside it. More follow until a new score is the lowest. null: all blocks. This saves time with scorers "
        "that run the model for each block, such as divergence and perplexity.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.exchange and self.rescored is not None:
            raise ValueError("exchange compares all scores after each removal, and rescored leaves some out")
        if self.exchange and self.rows is not None:
            raise ValueError(
                "exchange adds up the costs of all removals, and with rows the first is that on another text"
            )
        return self


@dataclass(frozen=True)
class Path:
    """A sequence of removals.

    Attributes:
        blocks: The removed blocks, in order of removal.
        cost: The total cost: the sum of the blocks' scores, each measured when the block was removed.
        exchanges: The number of removals that were undone along the way.
    """

    blocks: tuple[int, ...]
    cost: float = 0.0
    exchanges: int = 0

    def then(self, block: int, cost: float) -> Path:
        """Return this path with one more removal."""
        return Path((*self.blocks, block), self.cost + cost, self.exchanges)


class Greedy(Pruner):
    """Removes the block with the lowest score (the deeper of two equals), scores the remaining blocks, and repeats."""

    name = "greedy"
    nested = True
    reference = "Song et al. 2024 (SLEB), arXiv:2402.09025, algorithm 1; with any scorer"
    Config = GreedyConfig

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self.nested, self.rescored_rows = not self.config.exchange, self.config.rows

    def plan(self, scoring: Scoring, budget: Budget) -> PrunePlan:
        """Take the forced blocks first, and then, one at a time, the unprotected block with the lowest score.

        Raises:
            OptionError: a forced block is protected, or too few unprotected blocks are left.
        """
        config: GreedyConfig = self.config
        search = Search(scoring, budget, self._stay(budget), config.gap_penalty)
        best = search.greedy() if config.rescored is None else search.lazy(config.rescored)
        reason = "lowest score after each removal"
        if config.exchange and (other := search.exchanging(config.exchange)).cost < best.cost:
            best = other
            reason += f", with {best.exchanges} exchange{'s' * (best.exchanges != 1)}"
        return PrunePlan(num_blocks=budget.num_blocks, blocks=list(best.blocks), reason=reason)

    def _stay(self, budget: Budget) -> frozenset[int]:
        """Return the protected blocks."""
        blocks, config = range(budget.num_blocks), self.config
        ends = {*blocks[: config.protect_first], *blocks[len(blocks) - min(config.protect_last, len(blocks)) :]}
        if both := ends.intersection(budget.forced):
            raise OptionError(f"block {min(both)} is to be removed, and protected by protect_first or protect_last")
        return frozenset(ends | budget.protected)


@dataclass
class Search:
    """A search for the removals with the lowest total cost.

    Attributes:
        scoring: Scores the blocks that are left.
        budget: The number of blocks to remove, and the forced blocks.
        stay: The blocks that may not be removed.
        gap_penalty: The penalty added to a block's score for each pair of removals that it puts into the same gap.

    Raises:
        OptionError: too few unprotected blocks are left.
    """

    scoring: Scoring
    budget: Budget
    stay: frozenset[int]
    gap_penalty: float

    def __post_init__(self) -> None:
        self._known: dict[frozenset[int], dict[int, float]] = {}
        blocks = self.budget.num_blocks
        free = blocks - len(self.stay)
        if self.budget.count > free:
            raise OptionError(f"{self.budget.count} blocks are to go, but only {free} of {blocks} are not protected")

    def greedy(self) -> Path:
        """Return the path that removes the block with the lowest cost each time."""
        path = Path(self.budget.forced)
        while len(path.blocks) < self.budget.count:
            path = path.then(*self._weakest(path))
        return path

    def lazy(self, rescored: int) -> Path:
        """Return a path that removes the block with the lowest cost each time, without scoring all blocks each time.

        Args:
            rescored: The number of blocks with the lowest last costs that are scored again after each removal.
        """
        path = Path(self.budget.forced)
        if len(path.blocks) >= self.budget.count:
            return path
        costs = self._costs(path.blocks)
        while True:
            block = next(iter(costs))
            path = path.then(block, costs[block])
            if len(path.blocks) == self.budget.count:
                return path
            costs = self._again(path.blocks, costs, rescored)

    def _again(self, removed: tuple[int, ...], last: Mapping[int, float], rescored: int) -> dict[int, float]:
        """Return the costs of blocks after a removal, in ascending order; the lowest is a new one.

        Args:
            removed: The removed blocks, of which the last is new.
            last: The costs before that.
            rescored: The number of blocks with the lowest last costs that are scored again.
        """
        left = kept_blocks(removed, self.budget.num_blocks)
        costs = {block: last[block] for block in left if block not in self.stay}
        new: set[int] = set()
        ask = [block for block in costs if _beside(removed, block)]
        while True:
            waiting = [block for block in weakest_first(costs) if block not in new]
            ask = list(dict.fromkeys([*ask, *waiting[:rescored]]))
            fresh = self._scored(removed, ask)
            costs |= fresh
            new |= fresh.keys()
            ordered = weakest_first(costs)
            if ordered[0] in new:
                return {block: costs[block] for block in ordered}
            ask = []

    def exchanging(self, tried: int) -> Path:
        """Return the path that, whenever this costs less, undoes one removal and makes two others instead.

        Args:
            tried: The number of lowest-cost blocks to try as the first of the two.
        """
        path = Path(self.budget.forced)
        while len(path.blocks) < self.budget.count:
            following = path.then(*self._weakest(path))
            for other in self._exchanges(path, tried):
                if other.cost < following.cost and set(other.blocks) != set(following.blocks):
                    following = other
            path = following
        return path

    def _exchanges(self, path: Path, tried: int) -> Iterator[Path]:
        """Yield the paths that undo one removal of a path and make two others instead.

        To undo a removal subtracts the block's score in the model without all other blocks of the path. So if the
        scorer measures the rise of the loss, the cost of a path is the rise caused by all its removals together,
        regardless of their order.
        """
        forced = self.budget.forced
        for block in path.blocks[len(forced) :]:
            fewer = (*forced, *sorted(set(path.blocks) - {block, *forced}))
            costs = self._costs(fewer)
            before = Path(fewer, path.cost - costs[block], path.exchanges + 1)
            for first in [other for other in costs if other != block][:tried]:
                between = before.then(first, costs[first])
                yield between.then(*self._weakest(between))

    def _weakest(self, path: Path) -> tuple[int, float]:
        """Return the block with the lowest cost after the removals of a path, and its cost."""
        return next(iter(self._costs(path.blocks).items()))

    def _costs(self, removed: Sequence[int]) -> dict[int, float]:
        """Return the costs of the blocks that may be removed next, in ascending order; of equals the deeper first."""
        known = frozenset(removed)
        if known not in self._known:
            costs = self._scored(removed)
            self._known[known] = {block: costs[block] for block in weakest_first(costs)}
        return self._known[known]

    def _scored(self, removed: Sequence[int], among: Sequence[int] | None = None) -> dict[int, float]:
        """Score blocks that may be removed next, and return their costs; with `among` at least of these."""
        importance = self.scoring(list(removed)) if among is None else self.scoring(list(removed), among)
        scores = zip(importance.blocks, importance.scores, strict=True)
        costs = {block: score for block, score in scores if block not in self.stay}
        if self.gap_penalty:
            before = _sharing(removed)
            for block in costs:
                costs[block] += self.gap_penalty * (_sharing([*removed, block]) - before)
        return costs


def _beside(removed: Sequence[int], block: int) -> bool:
    """Whether a block lies in one gap with the last of the removed blocks."""
    return any(removed[-1] in run and block in run for run in runs_of([*removed, block]))


def _sharing(removed: Sequence[int]) -> int:
    """Return the number of pairs of removals that share a gap."""
    lengths = [len(run) for run in runs_of(removed)]
    return sum(length * (length - 1) // 2 for length in lengths)


@hookimpl
def layerimp_pruners() -> list[type[Pruner]]:
    """Return this plugin's pruner."""
    return [Greedy]

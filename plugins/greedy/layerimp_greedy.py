"""The pruner `greedy`: one block at a time goes, and all others are scored again (as in SLEB, arXiv:2402.09025)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import Field

from layerimp import PrunePlan, Pruner, hookimpl
from layerimp.component import Options
from layerimp.errors import OptionError
from layerimp.steps import Step, Sublayer, paired, removed_by, runs_of, simplest, sublayers_of, touched_by

if TYPE_CHECKING:
    from layerimp.pruner import Budget, Scoring


class GreedyConfig(Options):
    """Which ends of the model stay, and how far the search looks."""

    protect_first: int = Field(0, ge=0, description="How many of the first blocks stay; 1 in SLEB.")
    protect_last: int = Field(0, ge=0, description="How many of the last blocks stay; 1 in SLEB.")
    exchange: int = Field(
        0,
        ge=0,
        description="Before each removal, try to undo an earlier one and make two others in its place. This is how "
        "many of the weakest steps are tried as the first of the two; 0: nothing is undone.",
    )
    gap_penalty: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="Added to a step's score for each pair of removals that the step brings into one gap; in the "
        "scorer's unit.",
    )


@dataclass(frozen=True)
class Path:
    """Steps that are taken one after the other.

    Attributes:
        steps: The steps.
        cost: What they cost together: the sum of their scores, each as it was when the step was taken.
        exchanges: How often a step was undone on the way.
    """

    steps: tuple[Step, ...]
    cost: float = 0.0
    exchanges: int = 0

    def then(self, step: Step, cost: float) -> Path:
        """This path and one step more."""
        return Path((*self.steps, step), self.cost + cost, self.exchanges)


class Greedy(Pruner):
    """Removes the block with the lowest score, scores what is left, and so on; of two equal ones the deeper goes."""

    name = "greedy"
    nested = True
    cuts_seams = True
    reference = "Song et al. 2024 (SLEB), arXiv:2402.09025, algorithm 1; with any scorer"
    Config = GreedyConfig

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self.nested = not self.config.exchange

    def plan(self, scoring: Scoring, budget: Budget) -> PrunePlan:
        """Take the forced steps first, then the weakest of those that are left and not protected.

        Raises:
            OptionError: a forced step takes from a protected end, or too few unprotected steps are left.
        """
        config: GreedyConfig = self.config
        search = Search(scoring, budget, self._stay(budget), config.gap_penalty)
        found = search.greedy()
        reason = "lowest score after each removal"
        if config.exchange and (other := search.exchanging(config.exchange)).cost < found.cost:
            found = other
            reason += f", with {found.exchanges} exchange{'s' * (found.exchanges != 1)}"
        return PrunePlan(num_blocks=budget.num_blocks, blocks=list(found.steps), reason=reason)

    def _stay(self, budget: Budget) -> frozenset[int]:
        """The blocks that stay."""
        blocks, config = range(budget.num_blocks), self.config
        ends = {*blocks[: config.protect_first], *blocks[len(blocks) - min(config.protect_last, len(blocks)) :]}
        if both := ends & touched_by(budget.forced):
            what = f"block {min(both)}" if min(both) in budget.forced else f"a half of block {min(both)}"
            raise OptionError(f"{what} is to be removed, and protected by protect_first or protect_last")
        return frozenset(ends | budget.protected)


@dataclass
class Search:
    """A search for the steps that cost least.

    Attributes:
        scoring: Scores what can be taken next.
        budget: How many steps to take, and which of them first.
        stay: The blocks from which nothing more may be removed.
        gap_penalty: What is added to a step's score for each pair of steps that it brings into one gap.
    """

    scoring: Scoring
    budget: Budget
    stay: frozenset[int]
    gap_penalty: float

    def __post_init__(self) -> None:
        self._known: dict[frozenset[Sublayer], dict[Step, float]] = {}
        forced, gone = self.budget.forced, removed_by(self.budget.forced)
        rest = [block for block in range(self.budget.num_blocks) if block not in self.stay]
        free = len(forced) + sum(part not in gone for block in rest for part in sublayers_of(block)) // 2
        if self.budget.count > free:
            blocks = self.budget.num_blocks
            raise OptionError(f"{self.budget.count} blocks are to go, but only {free} of {blocks} are not protected")

    def greedy(self) -> Path:
        """The path on which every step is the weakest."""
        path = Path(self.budget.forced)
        while len(path.steps) < self.budget.count:
            path = path.then(*self._weakest(path))
        return path

    def exchanging(self, tried: int) -> Path:
        """The path on which, wherever that costs less, a step is undone and two others are taken in its place.

        Args:
            tried: How many of the weakest are tried as the first of the two.
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
        """The paths that undo one step of another and take two in its place.

        Undoing a step takes off the cost of taking it now, which is its score in the model that still has it. So with
        a scorer of the rise of the loss, the cost of a path is that of all its steps together, whatever their order.
        """
        for step, fewer in self._without_one(path.steps):
            costs = self._costs(fewer)
            before = Path(fewer, path.cost - costs[step], path.exchanges + 1)
            for first in [other for other in costs if other != step][:tried]:
                between = before.then(first, costs[first])
                yield between.then(*self._weakest(between))

    def _without_one(self, steps: tuple[Step, ...]) -> Iterator[tuple[Step, tuple[Step, ...]]]:
        """What can be undone, and what is taken without it: any step of a removal, and any that it can be read as."""
        forced, gone = self.budget.forced, removed_by(steps)
        fixed = removed_by(forced)
        for step in dict.fromkeys([*steps, *simplest(steps)]):
            parts = set(sublayers_of(step))
            if fixed.isdisjoint(parts):
                with suppress(OptionError):  # attention and MLP would not take turns
                    yield step, (*forced, *paired(gone - parts - fixed, forced))

    def _weakest(self, path: Path) -> tuple[Step, float]:
        """The step that costs least after those of a path, and what it costs."""
        return next(iter(self._costs(path.steps).items()))

    def _costs(self, taken: Sequence[Step]) -> dict[Step, float]:
        """What each step would cost that may be taken next, by rising cost; of two equal ones the deeper is first."""
        gone = removed_by(taken)
        if gone not in self._known:
            importance = self.scoring(list(taken))
            scores = zip(importance.blocks, importance.scores, strict=True)
            may_go = {step: score for step, score in scores if self.stay.isdisjoint(touched_by([step]))}
            if self.gap_penalty:
                before = _sharing(gone)
                for step in may_go:
                    may_go[step] += self.gap_penalty * (_sharing(gone.union(sublayers_of(step))) - before)
            deeper_first = sorted(may_go, key=lambda step: (may_go[step], -sublayers_of(step)[0].depth))
            self._known[gone] = {step: may_go[step] for step in deeper_first}
        return self._known[gone]


def _sharing(gone: frozenset[Sublayer]) -> int:
    """How many pairs of steps share a gap."""
    lengths = [len(run) // 2 for run in runs_of(gone)]
    return sum(length * (length - 1) // 2 for length in lengths)


@hookimpl
def layerimp_pruners() -> list[type[Pruner]]:
    """The pruner of this plugin."""
    return [Greedy]

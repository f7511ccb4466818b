"""The pruner `greedy`: one block at a time goes, and all others are scored again (as in SLEB, arXiv:2402.09025)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from layerimp import PrunePlan, Pruner, hookimpl
from layerimp.component import Options
from layerimp.errors import OptionError
from layerimp.steps import touched_by

if TYPE_CHECKING:
    from layerimp.pruner import Budget, Scoring


class GreedyConfig(Options):
    """Which ends of the model stay."""

    protect_first: int = Field(0, ge=0, description="How many of the first blocks stay; 1 in SLEB.")
    protect_last: int = Field(0, ge=0, description="How many of the last blocks stay; 1 in SLEB.")


class Greedy(Pruner):
    """Removes the block with the lowest score, scores what is left, and so on; of two equal ones the deeper goes."""

    name = "greedy"
    nested = True
    reference = "Song et al. 2024 (SLEB), arXiv:2402.09025, algorithm 1; with any scorer"
    Config = GreedyConfig

    def plan(self, scoring: Scoring, budget: Budget) -> PrunePlan:
        """Take what is forced first, then the weakest of the blocks that are left and not protected.

        Raises:
            OptionError: something of a protected end is forced, or too few others are left.
        """
        blocks, config = range(budget.num_blocks), self.config
        ends = {*blocks[: config.protect_first], *blocks[len(blocks) - min(config.protect_last, len(blocks)) :]}
        if both := ends & touched_by(budget.forced):
            what = f"block {min(both)}" if min(both) in budget.forced else f"a half of block {min(both)}"
            raise OptionError(f"{what} is to be removed, and protected by protect_first or protect_last")
        stay, removed = ends | budget.protected, list(budget.forced)
        free = len(removed) + len(set(blocks) - stay - touched_by(removed))
        if budget.count > free:
            raise OptionError(f"{budget.count} blocks are to go, but only {free} of {len(blocks)} are not protected")
        while len(removed) < budget.count:
            removed.append(next(block for block in scoring(removed).weakest_first() if block not in stay))
        return PrunePlan(num_blocks=budget.num_blocks, blocks=removed, reason="lowest score after each removal")


@hookimpl
def layerimp_pruners() -> list[type[Pruner]]:
    """The pruner of this plugin."""
    return [Greedy]

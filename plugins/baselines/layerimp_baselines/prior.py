"""Scorers that do not look at the model: `random` and `depth`. A scorer that does not beat both is of no use."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from pydantic import Field

from layerimp import Importance, Scorer
from layerimp.component import Options

if TYPE_CHECKING:
    from layerimp.sweep import Trace


class _Prior(Scorer):
    sweep = None

    def update(self, trace: Trace) -> None:
        """Do nothing: the scores do not depend on the model."""


class RandomConfig(Options):
    """The options of `random`: the seed."""

    seed: int = Field(0, ge=0, description="The seed; use several seeds under labels, to see the spread.")


class Random(_Prior):
    """A random number per block.

    A block keeps its number whatever was removed before, so that a search that scores again still removes at random.
    """

    name = "random"
    Config = RandomConfig

    def compute(self) -> Importance:
        """Return the random numbers."""
        draw = random.Random(self.config.seed)
        numbers = [draw.random() for _ in range(max(self.blocks, default=-1) + 1)]
        return Importance(scores=[numbers[block] for block in self.blocks])


class Depth(_Prior):
    """Deeper blocks score lower, and are removed first; only the last block scores highest, and is kept."""

    name = "depth"

    def compute(self) -> Importance:
        """Return 1 for the first block, less for every following block, and the highest score for the last block."""
        scores = [1 - block / self.num_blocks for block in range(self.num_blocks)]
        return Importance(scores=[*scores[:-1], 2.0])

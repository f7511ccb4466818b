"""Scores that look at nothing: chance and depth. A metric that does not beat them says nothing."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Self

from pydantic import Field

from layerimp import Importance, Scorer
from layerimp.component import Options

if TYPE_CHECKING:
    from layerimp.sweep import Trace


class _Prior(Scorer):
    sweep = None

    def update(self, trace: Trace) -> None:
        """Nothing is looked at."""

    def merge(self, other: Self) -> None:
        """Nothing was looked at."""


class RandomConfig(Options):
    """Which draw."""

    seed: int = Field(0, ge=0, description="Which draw; use several under labels, and look at their spread.")


class Random(_Prior):
    """A random number per block; seams have draws of their own."""

    name = "random"
    Config = RandomConfig

    def compute(self) -> Importance:
        """The draw."""
        draw = random.Random(f"seams {self.config.seed}" if self.scores_seams else self.config.seed)
        return Importance(scores=[draw.random() for _ in range(self.num_blocks)])


class Depth(_Prior):
    """The deeper a block, the sooner it goes; the last one stays."""

    name = "depth"

    def compute(self) -> Importance:
        """1 for the first block and less with every block, but most for the last one."""
        scores = [1 - block / self.num_blocks for block in range(self.num_blocks)]
        return Importance(scores=[*scores[:-1], 2.0])

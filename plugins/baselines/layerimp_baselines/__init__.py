"""The metrics that every importance metric is compared with."""

from __future__ import annotations

from layerimp import Scorer, hookimpl
from layerimp_baselines.angular import Angular
from layerimp_baselines.block_influence import BlockInfluence
from layerimp_baselines.prior import Depth, Random
from layerimp_baselines.relative_magnitude import RelativeMagnitude

__all__ = ["Angular", "BlockInfluence", "Depth", "Random", "RelativeMagnitude", "layerimp_scorers"]


@hookimpl
def layerimp_scorers() -> list[type[Scorer]]:
    """The scorers of this plugin."""
    return [Angular, BlockInfluence, Depth, Random, RelativeMagnitude]

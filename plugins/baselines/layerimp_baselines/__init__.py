"""The baseline scorers, with which every other scorer is compared."""

from __future__ import annotations

from layerimp import Scorer, hookimpl
from layerimp_baselines.angular import Angular
from layerimp_baselines.block_influence import BlockInfluence
from layerimp_baselines.perplexity import Perplexity
from layerimp_baselines.prior import Depth, Random
from layerimp_baselines.relative_magnitude import RelativeMagnitude
from layerimp_baselines.taylor import Taylor

__all__ = [
    "Angular",
    "BlockInfluence",
    "Depth",
    "Perplexity",
    "Random",
    "RelativeMagnitude",
    "Taylor",
    "layerimp_scorers",
]


@hookimpl
def layerimp_scorers() -> list[type[Scorer]]:
    """Return this plugin's scorers."""
    return [Angular, BlockInfluence, Depth, Perplexity, Random, RelativeMagnitude, Taylor]

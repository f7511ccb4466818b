"""Repair in closed form: adjust the weights beside each gap to make up for the removed blocks, without training.

Two healers repair a pruned model, and a scorer chooses the blocks that can be repaired.
"""

from __future__ import annotations

from layerimp import Healer, Scorer, hookimpl
from layerimp_closedform.divergence import Divergence
from layerimp_closedform.linear import Linear
from layerimp_closedform.rescale import Rescale

__all__ = ["Divergence", "Linear", "Rescale", "layerimp_healers", "layerimp_scorers"]


@hookimpl
def layerimp_healers() -> list[type[Healer]]:
    """Return this plugin's healers."""
    return [Linear, Rescale]


@hookimpl
def layerimp_scorers() -> list[type[Scorer]]:
    """Return this plugin's scorer."""
    return [Divergence]

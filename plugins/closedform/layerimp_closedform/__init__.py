"""Healing in closed form: adjust the weights beside each gap to make up for the removed blocks, without training."""

from __future__ import annotations

from layerimp import Healer, hookimpl
from layerimp_closedform.linear import Linear
from layerimp_closedform.rescale import Rescale

__all__ = ["Linear", "Rescale", "layerimp_healers"]


@hookimpl
def layerimp_healers() -> list[type[Healer]]:
    """Return this plugin's healers."""
    return [Linear, Rescale]

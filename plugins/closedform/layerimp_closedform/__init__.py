"""Healing in closed form: what is lost at a gap is put back into the weights beside it, without training."""

from __future__ import annotations

from layerimp import Healer, hookimpl
from layerimp_closedform.linear import Linear
from layerimp_closedform.rescale import Rescale

__all__ = ["Linear", "Rescale", "layerimp_healers"]


@hookimpl
def layerimp_healers() -> list[type[Healer]]:
    """The healers of this plugin."""
    return [Linear, Rescale]

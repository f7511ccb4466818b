"""Healing by distillation: the intact model teaches what is left of the pruned one."""

from __future__ import annotations

from layerimp import Healer, hookimpl
from layerimp_distill.distill import Distill

__all__ = ["Distill", "layerimp_healers"]


@hookimpl
def layerimp_healers() -> list[type[Healer]]:
    """Return this plugin's healer."""
    return [Distill]

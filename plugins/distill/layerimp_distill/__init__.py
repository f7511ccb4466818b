"""Healing by distillation: the pruned model is trained to reproduce the intact model."""

from __future__ import annotations

from layerimp import Healer, hookimpl
from layerimp_distill.distill import Distill

__all__ = ["Distill", "layerimp_healers"]


@hookimpl
def layerimp_healers() -> list[type[Healer]]:
    """Return this plugin's healer."""
    return [Distill]

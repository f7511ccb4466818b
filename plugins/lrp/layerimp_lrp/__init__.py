"""Layer-wise relevance propagation for transformers, as a scorer."""

from __future__ import annotations

from layerimp import Scorer, hookimpl
from layerimp_lrp.lrp import LRP, LRPConfig
from layerimp_lrp.relevance import Relevance

__all__ = ["LRP", "LRPConfig", "Relevance", "layerimp_scorers"]


@hookimpl
def layerimp_scorers() -> list[type[Scorer]]:
    """Return this plugin's scorer."""
    return [LRP]

"""The evaluator `harness`: lm-evaluation-harness on a model in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerimp import hookimpl
from layerimp_harness.harness import Harness

if TYPE_CHECKING:
    from layerimp import Evaluator

__all__ = ["Harness"]


@hookimpl
def layerimp_evaluators() -> list[type[Evaluator]]:
    """Return this plugin's evaluator."""
    return [Harness]

"""Which blocks of a transformer matter, and what it costs to remove the others.

The public names are loaded on first use, so that importing `layerimp` imports no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

__all__ = [
    "Evaluator",
    "Importance",
    "LayerimpError",
    "Metric",
    "PrunePlan",
    "Pruner",
    "Recipe",
    "Scorer",
    "find_blocks",
    "hookimpl",
    "load",
    "prune",
    "run",
    "save",
    "score",
]

_HOME = {
    "Evaluator": "evaluator",
    "Importance": "scorer",
    "LayerimpError": "errors",
    "Metric": "evaluator",
    "PrunePlan": "pruner",
    "Pruner": "pruner",
    "Recipe": "recipe",
    "Scorer": "scorer",
    "find_blocks": "discovery",
    "hookimpl": "hookspecs",
    "load": "model",
    "prune": "surgery",
    "run": "pipeline",
    "save": "checkpoint",
    "score": "engine",
}

if TYPE_CHECKING:
    from layerimp.checkpoint import save
    from layerimp.discovery import find_blocks
    from layerimp.engine import score
    from layerimp.errors import LayerimpError
    from layerimp.evaluator import Evaluator, Metric
    from layerimp.hookspecs import hookimpl
    from layerimp.model import load
    from layerimp.pipeline import run
    from layerimp.pruner import PrunePlan, Pruner
    from layerimp.recipe import Recipe
    from layerimp.scorer import Importance, Scorer
    from layerimp.surgery import prune


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'layerimp' has no attribute {name!r}")
    value: object = getattr(import_module(f"layerimp.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""Which blocks of a transformer matter, and what it costs to remove the others.

The public names are loaded on first use, so that importing `layerimp` imports no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from layerimp._version import __version__ as __version__

__all__ = [
    "Evaluator",
    "Grid",
    "Healer",
    "Importance",
    "LayerimpError",
    "Likelihood",
    "Metric",
    "PrunePlan",
    "Pruner",
    "Recipe",
    "Scorer",
    "compare",
    "evaluate",
    "find_blocks",
    "heal",
    "hookimpl",
    "load",
    "prune",
    "read_plans",
    "run",
    "run_grid",
    "save",
    "score",
]

_HOME = {
    "Evaluator": "evaluator",
    "Grid": "bench.grid",
    "Healer": "healer",
    "Importance": "scorer",
    "LayerimpError": "errors",
    "Likelihood": "metric",
    "Metric": "metric",
    "PrunePlan": "pruner",
    "Pruner": "pruner",
    "Recipe": "recipe",
    "Scorer": "scorer",
    "compare": "pipeline.comparing",
    "evaluate": "pipeline.commands",
    "find_blocks": "models.discovery",
    "heal": "pipeline.healing",
    "hookimpl": "hookspecs",
    "load": "models.loading",
    "prune": "surgery.removal",
    "read_plans": "recipe.plans",
    "run": "pipeline.commands",
    "run_grid": "bench.commands",
    "save": "checkpoint.saving",
    "score": "scoring.engine",
}

if TYPE_CHECKING:
    from layerimp.bench.commands import run_grid
    from layerimp.bench.grid import Grid
    from layerimp.checkpoint.saving import save
    from layerimp.errors import LayerimpError
    from layerimp.evaluator import Evaluator
    from layerimp.healer import Healer
    from layerimp.hookspecs import hookimpl
    from layerimp.metric import Likelihood, Metric
    from layerimp.models.discovery import find_blocks
    from layerimp.models.loading import load
    from layerimp.pipeline.commands import evaluate, run
    from layerimp.pipeline.comparing import compare
    from layerimp.pipeline.healing import heal
    from layerimp.pruner import PrunePlan, Pruner
    from layerimp.recipe import Recipe
    from layerimp.recipe.plans import read_plans
    from layerimp.scorer import Importance, Scorer
    from layerimp.scoring.engine import score
    from layerimp.surgery.removal import prune


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'layerimp' has no attribute {name!r}")
    value: object = getattr(import_module(f"layerimp.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

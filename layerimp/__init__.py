"""Which blocks of a transformer matter, and what it costs to remove the others.

The public names are loaded on first use, so that importing `layerimp` imports no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from layerimp._version import __version__ as __version__

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
    "shrink": "pipeline.shrink",
}

__all__ = list(_HOME)

if TYPE_CHECKING:
    from layerimp.bench.commands import run_grid as run_grid
    from layerimp.bench.grid import Grid as Grid
    from layerimp.checkpoint.saving import save as save
    from layerimp.errors import LayerimpError as LayerimpError
    from layerimp.evaluator import Evaluator as Evaluator
    from layerimp.healer import Healer as Healer
    from layerimp.hookspecs import hookimpl as hookimpl
    from layerimp.metric import Likelihood as Likelihood
    from layerimp.metric import Metric as Metric
    from layerimp.models.discovery import find_blocks as find_blocks
    from layerimp.models.loading import load as load
    from layerimp.pipeline.commands import evaluate as evaluate
    from layerimp.pipeline.commands import run as run
    from layerimp.pipeline.comparing import compare as compare
    from layerimp.pipeline.healing import heal as heal
    from layerimp.pipeline.shrink import shrink as shrink
    from layerimp.pruner import PrunePlan as PrunePlan
    from layerimp.pruner import Pruner as Pruner
    from layerimp.recipe import Recipe as Recipe
    from layerimp.recipe.plans import read_plans as read_plans
    from layerimp.scorer import Importance as Importance
    from layerimp.scorer import Scorer as Scorer
    from layerimp.scoring.engine import score as score
    from layerimp.surgery.removal import prune as prune


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'layerimp' has no attribute {name!r}")
    value: object = getattr(import_module(f"layerimp.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

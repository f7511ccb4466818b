"""`layerimp evaluate`: the metrics of a model as it is."""

from __future__ import annotations

import typer

from layerimp.cli import options as o
from layerimp.cli.requests import permissions, recipe_from


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(evaluate)


def evaluate(
    model: o.Model = None,
    tasks: o.Tasks = None,
    output: o.Output = None,
    evaluator: o.Evaluator = None,
    set_: o.Set = None,
    task_path: o.TaskPath = None,
    data_dir: o.DataDir = None,
    limit: o.Limit = None,
    num_fewshot: o.NumFewshot = None,
    allow_task_code: o.AllowTaskCode = False,
    batch_size: o.BatchSize = None,
    seed: o.Seed = None,
    dtype: o.Dtype = None,
    device: o.Device = None,
    device_map: o.DeviceMap = None,
    trust_remote_code: o.TrustRemoteCode = False,
    overwrite: o.Overwrite = None,
    recipe: o.RecipeFile = None,
    json: o.Json = False,
) -> int:
    """Evaluate a model as it is.

    Example: layerimp evaluate --model DIR --tasks wikitext --limit 50
    """
    given = dict(locals())
    made = recipe_from(**given)
    allowed = permissions(**given)
    from layerimp.cli.display import Screen
    from layerimp.pipeline import commands as pipeline

    screen = Screen(json=json)
    return screen.show(pipeline.evaluate_model(made, permissions=allowed, progress=screen))

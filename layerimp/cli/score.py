"""`layerimp score`: importance scores, and nothing else."""

from __future__ import annotations

import typer

from layerimp.cli import options as o
from layerimp.cli.requests import permissions, recipe_from


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(score)


def score(
    model: o.Model = None,
    scorer: o.Scorer = None,
    calibration: o.Calibration = None,
    output: o.Output = None,
    set_: o.Set = None,
    field: o.Field = None,
    packing: o.Packing = None,
    label_field: o.LabelField = None,
    samples: o.Samples = None,
    max_length: o.MaxLength = None,
    batch_size: o.BatchSize = None,
    seed: o.Seed = None,
    task_path: o.TaskPath = None,
    data_dir: o.DataDir = None,
    allow_task_code: o.AllowTaskCode = False,
    dtype: o.Dtype = None,
    device: o.Device = None,
    device_map: o.DeviceMap = None,
    trust_remote_code: o.TrustRemoteCode = False,
    overwrite: o.Overwrite = None,
    recipe: o.RecipeFile = None,
    json: o.Json = False,
) -> int:
    """Score every block of a model.

    Example: layerimp score --model DIR --scorer avss --calibration FILE.jsonl
    """
    given = dict(locals())
    made = recipe_from(**given)
    allowed = permissions(**given)
    from layerimp.cli.display import Screen
    from layerimp.pipeline import commands as pipeline

    screen = Screen(json=json)
    return screen.show(pipeline.score_model(made, permissions=allowed, progress=screen))

"""`layerimp run`: score, prune, evaluate."""

from __future__ import annotations

import typer

from layerimp.cli import options as o
from layerimp.cli.requests import permissions, recipe_from


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(run)


def run(
    model: o.Model = None,
    scorer: o.Scorer = None,
    no_baselines: o.NoBaselines = False,
    calibration: o.Calibration = None,
    tasks: o.Tasks = None,
    ratio: o.Ratio = None,
    count: o.Count = None,
    output: o.Output = None,
    pruner: o.Pruner = None,
    blocks: o.Blocks = None,
    protect: o.Protect = None,
    set_: o.Set = None,
    field: o.Field = None,
    packing: o.Packing = None,
    label_field: o.LabelField = None,
    samples: o.Samples = None,
    max_length: o.MaxLength = None,
    batch_size: o.BatchSize = None,
    seed: o.Seed = None,
    evaluator: o.Evaluator = None,
    task_path: o.TaskPath = None,
    data_dir: o.DataDir = None,
    limit: o.Limit = None,
    num_fewshot: o.NumFewshot = None,
    allow_task_code: o.AllowTaskCode = False,
    dtype: o.Dtype = None,
    device: o.Device = None,
    device_map: o.DeviceMap = None,
    trust_remote_code: o.TrustRemoteCode = False,
    overwrite: o.Overwrite = None,
    max_shard_size: o.MaxShardSize = None,
    no_verify: o.NoVerify = False,
    recipe: o.RecipeFile = None,
    json: o.Json = False,
) -> int:
    """Score every block, remove the least important ones, and measure what that costs.

    Example: layerimp run --model DIR --scorer avss --calibration FILE.jsonl --tasks wikitext --ratio 0.25 --output OUT
    """
    given = dict(locals())
    made = recipe_from(**given)
    allowed = permissions(**given)
    from layerimp.cli.display import Screen
    from layerimp.pipeline import commands as pipeline

    screen = Screen(json=json)
    return screen.show(pipeline.run(made, permissions=allowed, progress=screen))

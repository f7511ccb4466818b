"""`layerimp prune`: a pruned checkpoint, without evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from layerimp.cli import options as o
from layerimp.cli.requests import permissions, recipe_from
from layerimp.errors import OptionError

if TYPE_CHECKING:
    from layerimp.pruner import PrunePlan

Plan = Annotated[Path | None, typer.Option(help="Plan file (plan.json of an earlier output) to apply.")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(prune)


def prune(
    model: o.Model = None,
    plan: Plan = None,
    blocks: o.Blocks = None,
    scorer: o.Scorer = None,
    calibration: o.Calibration = None,
    ratio: o.Ratio = None,
    count: o.Count = None,
    output: o.Output = None,
    pruner: o.Pruner = None,
    protect: o.Protect = None,
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
    max_shard_size: o.MaxShardSize = None,
    no_verify: o.NoVerify = False,
    recipe: o.RecipeFile = None,
    json: o.Json = False,
) -> int:
    """Remove blocks from a model: those of a plan, those named, or those that score lowest.

    Example: layerimp prune --model DIR --blocks 3,5 --output OUT
    """
    given = dict(locals())
    for name in ("blocks", "ratio", "count", "protect", "scorer", "calibration"):
        if plan is not None and given[name] is not None:
            raise OptionError(f"a plan says which blocks go: --plan and --{name} contradict each other")
    made = recipe_from(**given)
    allowed = permissions(**given)
    plans = None if plan is None else _read_plans(plan)
    from layerimp.cli.display import Screen
    from layerimp.pipeline import commands as pipeline

    screen = Screen(json=json)
    return screen.show(pipeline.prune_model(made, plans, permissions=allowed, progress=screen))


def _read_plans(path: Path) -> dict[str, PrunePlan]:
    """The plans of a file, by label: one plan, or a whole `plan.json`."""
    import json

    from pydantic import ValidationError

    from layerimp.errors import InputError
    from layerimp.pruner import PrunePlan

    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(document, dict):
            raise TypeError("it is not a JSON object")
        plans = document["plans"] if "plans" in document else {document.get("scorer") or "plan": document}
        return {label: PrunePlan(**plan) for label, plan in plans.items()}
    except OSError as error:
        raise InputError(f"cannot read the plan {path}: {error.strerror}") from None
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise InputError(f"{path} is no plan: {where} {problem['msg']}") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is no plan: {error}") from None

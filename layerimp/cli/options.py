"""The options that commands share, and the recipe that they make together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from layerimp.errors import OptionError, unknown_name

if TYPE_CHECKING:
    from layerimp.bench.grid import Grid
    from layerimp.recipe import Described, Permissions, Recipe

Model = Annotated[str | None, typer.Option(help="Model directory, or hub id. Default: starter, which ships.")]
Dtype = Annotated[
    str | None,
    typer.Option(
        help="What to compute in: float32, bfloat16, float16 or float64. Default: as stored, but float32 where the CPU "
        "only emulates that, and for the starter. Checkpoints are written as stored."
    ),
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1. Default: the first GPU, else the CPU.")]
DeviceMap = Annotated[
    str | None,
    typer.Option(help="auto: spread the model over all GPUs. Default: one device."),
]
TrustRemoteCode = Annotated[bool, typer.Option("--trust-remote-code", help="Run Python that comes with the model.")]
Scorer = Annotated[
    list[str] | None,
    typer.Option(help="Scorer, LABEL=SCORER, or all; repeatable. Default: avss."),
]
NoBaselines = Annotated[
    bool,
    typer.Option("--no-baselines", help="Do not evaluate the baselines random and depth beside the scorers."),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="LABEL.OPTION=VALUE, for a scorer, the pruner or an evaluator; repeatable."),
]
Calibration = Annotated[
    str | None,
    typer.Option(
        help="JSONL or text file, or hub data set NAME[:CONFIG[:SPLIT]], or task:NAME. Default: text that ships."
    ),
]
Field = Annotated[str | None, typer.Option(help="JSON field that holds the text. Default: text.")]
Packing = Annotated[
    str | None,
    typer.Option(
        help="windows (documents joined, full rows) or rows. Default: windows; for a classifier on a task, rows."
    ),
]
LabelField = Annotated[
    str | None,
    typer.Option(help="JSON field that holds a classifier's label; needs --packing rows."),
]
Samples = Annotated[int | None, typer.Option(help="Calibration rows. Default: 64.")]
MaxLength = Annotated[int | None, typer.Option(help="Tokens per row. Default: 256, or what the model takes.")]
BatchSize = Annotated[int | None, typer.Option(help="Rows per batch. Default: 8.")]
Seed = Annotated[int | None, typer.Option(help="Seed of every draw. Default: 0.")]
Pruner = Annotated[str | None, typer.Option(help="Pruner. Default: lowest.")]
Ratio = Annotated[
    float | None,
    typer.Option(help="Share of the blocks to remove. Default: 0.25, or what --blocks says."),
]
Blocks = Annotated[str | None, typer.Option(help="Blocks that go whatever their score, such as 3,5.")]
Protect = Annotated[str | None, typer.Option(help="Blocks that stay whatever their score, such as 0,17.")]
Tasks = Annotated[
    str | None,
    typer.Option(
        help="lm-evaluation-harness tasks, comma-separated: names or YAML paths; none. Default: three that ship."
    ),
]
Evaluator = Annotated[
    list[str] | None,
    typer.Option(help="Evaluator; repeatable. Default: harness and footprint."),
]
TaskPath = Annotated[Path | None, typer.Option(help="Directory with further task YAMLs.")]
DataDir = Annotated[
    Path | None,
    typer.Option(help="Where relative data files of local tasks are looked for first."),
]
Limit = Annotated[int | None, typer.Option(help="Documents per task. Default: all.")]
NumFewshot = Annotated[int | None, typer.Option(help="Examples in each prompt. Default: the task's.")]
AllowTaskCode = Annotated[
    bool,
    typer.Option("--allow-task-code", help="Run Python that local task YAMLs name."),
]
Output = Annotated[Path | None, typer.Option(help="Directory for results and checkpoints; must not exist.")]
Overwrite = Annotated[
    bool | None,
    typer.Option("--overwrite", help="Replace an output that layerimp made."),
]
NoVerify = Annotated[bool, typer.Option("--no-verify", help="Do not load checkpoints back to compare.")]
MaxShardSize = Annotated[
    str | None,
    typer.Option("--max-shard-size", help="Largest file of a checkpoint's weights, such as 5GB."),
]
RecipeFile = Annotated[
    Path | None,
    typer.Option("--recipe", help="YAML or JSON recipe; options given here win."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else.")]


def permissions(*, trust_remote_code: bool = False, allow_task_code: bool = False) -> Permissions:
    """What the flags allow."""
    from layerimp.recipe import Permissions

    return Permissions(trust_remote_code=trust_remote_code, allow_task_code=allow_task_code)


def recipe_from(
    file: Path | None,
    *,
    scorer: list[str] | None = None,
    set_: list[str] | None = None,
    pruner: str | None = None,
    evaluator: list[str] | None = None,
    tasks: str | None = None,
    blocks: str | None = None,
    protect: str | None = None,
    calibration: dict[str, Any] | None = None,
    no_baselines: bool = False,
    no_verify: bool = False,
    **plain: Any,
) -> Recipe:
    """The recipe of a file (if any) with the command line's options over it.

    Raises:
        InputError: an option is malformed, or the whole makes no recipe.
    """
    from layerimp.recipe import make_recipe, read_recipe

    values = read_recipe(file) if file else {}
    values |= _common(values, scorer=scorer, evaluator=evaluator, tasks=tasks, calibration=calibration, plain=plain)
    if no_baselines:
        values["baselines"] = {}
    if pruner:
        values["pruner"] = {"name": pruner}
    for name, text in (("blocks", blocks), ("protect", protect)):
        if text is not None:
            values[name] = _indices(text, name)
    if no_verify:
        values["verify"] = False
    return _with_options(make_recipe(values), set_ or [])


def grid_from(
    file: Path | None,
    *,
    model: list[str] | None = None,
    dtype: str | None = None,
    scorer: list[str] | None = None,
    set_: list[str] | None = None,
    pruner: list[str] | None = None,
    ratio: list[str] | None = None,
    evaluator: list[str] | None = None,
    tasks: str | None = None,
    protect: str | None = None,
    calibration: dict[str, Any] | None = None,
    no_baselines: bool = False,
    **plain: Any,
) -> Grid:
    """The grid of a file (if any) with the command line's options over it.

    Raises:
        InputError: an option is malformed, or the whole makes no grid.
    """
    from layerimp.bench.grid import Grid
    from layerimp.recipe import made, read_recipe

    values = read_recipe(file) if file else {}
    values |= _common(values, scorer=scorer, evaluator=evaluator, tasks=tasks, calibration=calibration, plain=plain)
    if no_baselines:
        values["baselines"] = {}
    if pruner:
        values["pruners"] = _labelled("pruner", pruner)
    if model:
        values["models"] = _models(model)
    if protect is not None:
        values["protect"] = _indices(protect, "protect")
    if ratio:
        values["ratios"] = [_ratio(text) for text in ratio]
    grid = made(Grid, values)
    if dtype is not None:
        models = {label: spec.model_copy(update={"dtype": dtype}) for label, spec in grid.models.items()}
        grid = grid.model_copy(update={"models": models})
    return _with_options(grid, set_ or [])


def _common(
    values: dict[str, Any],
    *,
    scorer: list[str] | None,
    evaluator: list[str] | None,
    tasks: str | None,
    calibration: dict[str, Any] | None,
    plain: dict[str, Any],
) -> dict[str, Any]:
    """What the command line says over `values`, of all that a run and a grid have in common."""
    said = {name: value for name, value in plain.items() if value is not None}
    if scorer:
        said["scorers"] = _labelled("scorer", scorer)
    if evaluator:
        said["evaluators"] = _labelled("evaluator", evaluator)
    if tasks is not None:
        names = [task.strip() for task in tasks.split(",") if task.strip()]
        said["tasks"] = [] if names == ["none"] else names
    if given := {name: value for name, value in (calibration or {}).items() if value is not None}:
        before = values.get("calibration") or {}
        if not isinstance(before, dict):
            raise OptionError(f"calibration is a mapping, got {before!r}")
        said["calibration"] = before | given
    return said


def _models(specs: list[str]) -> dict[str, str] | list[str]:
    """Models by label, or just their names where none has a label."""
    if not any("=" in spec for spec in specs):
        return specs
    found: dict[str, str] = {}
    for spec in specs:
        label, equals, name = spec.partition("=")
        if not equals:
            raise OptionError(f"--model {spec}: give every model a label, or none")
        if label in found:
            raise OptionError(f"the model {label!r} comes twice")
        found[label] = name
    return found


def _ratio(text: str) -> float:
    try:
        return int(text) if text.isdecimal() else float(text)
    except ValueError:
        raise OptionError(
            f"--ratio takes a share such as 0.25, or a number of blocks such as 1, got {text!r}"
        ) from None


def _labelled(kind: str, specs: list[str]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for spec in specs:
        label, _, name = spec.rpartition("=")
        label = label or name
        if label in found:
            raise OptionError(f"the {kind} {label!r} comes twice; give it a label: --{kind} LABEL={name}")
        found[label] = {"name": name}
    return found


def _indices(text: str, option: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise OptionError(f"--{option} takes block indices such as 3,5, got {text!r}") from None


def _with_options(recipe: Described, settings: list[str]) -> Described:
    """A recipe, of a run or a grid, with every LABEL.OPTION=VALUE put where it belongs."""
    import yaml

    from layerimp.defaults import ALL
    from layerimp.recipe import refuse_permissions
    from layerimp.registry.catalog import registry

    if not settings:
        return recipe
    document = recipe.model_dump()
    pruners = document["pruners"] if "pruners" in document else {document["pruner"]["name"]: document["pruner"]}
    homes = {**pruners, **document["evaluators"], **document["scorers"]}
    for setting in settings:
        target, equals, value = setting.partition("=")
        label, dot, option = target.rpartition(".")
        if not (equals and dot and label and option):
            raise OptionError(f"--set takes LABEL.OPTION=VALUE, such as avss.site=block_out, got {setting!r}")
        if label not in homes and ALL in document["scorers"] and label in registry().names("scorer"):
            # Who gives one of them an option names it.
            homes[label] = document["scorers"][label] = {"name": label, "options": {}}
        if label not in homes:
            raise unknown_name("label", label, homes, of=f"--set {setting}")
        try:
            parsed = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError):
            parsed = value
        refuse_permissions({option: parsed}, f"--set {setting}")
        homes[label]["options"][option] = parsed
    said = recipe.model_fields_set | ({"scorers", "pruner", "pruners", "evaluators"} & document.keys())
    return type(recipe).model_validate({field: document[field] for field in said})


def calibration_values(
    source: str | None,
    field: str | None,
    packing: str | None,
    label_field: str | None,
    samples: int | None,
    max_length: int | None,
) -> dict[str, Any]:
    """The calibration part of a recipe, from its options."""
    return {
        "source": source,
        "field": field,
        "packing": packing,
        "label_field": label_field,
        "samples": samples,
        "max_length": max_length,
    }

"""Turns the options of a command line into the recipe of a run or a grid, and into permissions to run code.

A command passes all of its options at once, by the names of its parameters, so that each option is declared only once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from layerimp.errors import OptionError, unknown_name

if TYPE_CHECKING:
    from pathlib import Path

    from layerimp.bench.grid import Grid, ModelSpec
    from layerimp.recipe import Described, Part, Permissions, Recipe

_CALIBRATION = ("field", "packing", "label_field", "samples", "max_length")


def permissions(*, trust_remote_code: bool = False, allow_task_code: bool = False, **_others: object) -> Permissions:
    """Return the permissions that the flags give."""
    from layerimp.recipe import Permissions

    return Permissions(trust_remote_code=trust_remote_code, allow_task_code=allow_task_code)


def recipe_from(recipe: Path | None = None, **given: Any) -> Recipe:
    """Make a recipe from a file (if any) and the options of the command line, which take precedence.

    Raises:
        InputError: an option is malformed, or the file and the options together are not a valid recipe.
    """
    from layerimp.recipe import Recipe, checked_keep, make_recipe
    from layerimp.sizes.targets import split_targets
    from layerimp.steps import read_steps

    values = _values(Recipe, recipe, given)
    if pruner := given.get("pruner"):
        values["pruner"] = {"name": pruner}
    if (blocks := given.get("blocks")) is not None:
        values["blocks"] = read_steps(blocks)
    ratio, keep, targets = given.get("ratio"), given.get("keep"), split_targets(given.get("target") or [])
    if keep is not None:
        checked_keep(keep, name="--keep")
    amounts = {"ratio": ratio, "count": given.get("count"), "keep": keep, "targets": targets or None}
    values = _with_amounts(values, [] if ratio is None else [ratio], **amounts)
    if given.get("no_verify"):
        values["verify"] = False
    return _with_options(make_recipe(values), given.get("set_") or [])


def grid_from(recipe: Path | None = None, **given: Any) -> Grid:
    """Make a grid from a file (if any) and the options of the command line, which take precedence.

    Raises:
        InputError: an option is malformed, or the file and the options together are not a valid grid.
    """
    from layerimp.bench.grid import Grid
    from layerimp.recipe import made

    values = _values(Grid, recipe, given)
    if pruner := given.get("pruner"):
        values["pruners"] = _labelled("pruner", pruner)
    if model := given.get("model"):
        values["models"] = _models(model, values.get("models"))
    ratios = given.get("ratio") or []
    grid = made(Grid, _with_amounts(values, ratios, ratios=ratios or None, counts=given.get("count") or None))
    models = {label: _with_said(spec, given) for label, spec in grid.models.items()}
    return _with_options(grid.model_copy(update={"models": models}), given.get("set_") or [])


def _with_said(spec: ModelSpec, given: Mapping[str, Any]) -> ModelSpec:
    """Return a model of a grid with the options of the command line in place of its own fields."""
    from layerimp.recipe import made

    said: dict[str, Any] = {}
    if (dtype := given.get("dtype")) is not None:
        said["dtype"] = dtype
    if given.get("tasks"):
        said["tasks"] = None  # as the grid
    if spec.calibration is not None and (chosen := _chosen_text(given)):
        own = spec.calibration.model_dump(exclude_unset=True)
        said["calibration"] = made(type(spec.calibration), own | chosen)
    return spec.model_copy(update=said)


def _chosen_text(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the calibration text that the command line gives."""
    text = {"source": given.get("calibration")} | {name: given.get(name) for name in _CALIBRATION}
    return {name: value for name, value in text.items() if value is not None}


def _values(kind: type[Part], file: Path | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that runs and grids have in common, from a file (if any) and from options, which win.

    Args:
        kind: The class of the description, whose fields have the names of the options.
        file: The recipe.
        given: The options, by the names of the command's parameters.
    """
    from layerimp.recipe import read_recipe

    values = read_recipe(file) if file else {}
    said = {name: given[name] for name in kind.model_fields if given.get(name) is not None}
    if scorer := given.get("scorer"):
        said["scorers"] = _labelled("scorer", scorer)
    if healer := given.get("heal"):
        said["healers"] = _labelled("healer", healer, option="heal")
    if evaluator := given.get("evaluator"):
        said["evaluators"] = _labelled("evaluator", evaluator)
    if tasks := given.get("tasks"):
        said["tasks"] = _tasks(",".join(tasks))
    if given.get("no_baselines"):
        said["baselines"] = {}
    if chosen := _chosen_text(given):
        before = values.get("calibration") or {}
        if not isinstance(before, dict):
            raise OptionError(f"calibration is a mapping, got {before!r}")
        said["calibration"] = before | chosen
    if "protect" in said:
        said["protect"] = _protected(said["protect"])
    return values | said


def _tasks(text: str) -> list[str]:
    """Return the names of tasks that an option lists, with commas between."""
    names = [task.strip() for task in text.split(",") if task.strip()]
    if not names or ("none" in names and len(names) > 1):
        raise OptionError(f"--tasks takes names with commas between, or none alone, got {text!r}")
    return [] if names == ["none"] else names


def _models(specs: list[str], in_file: Any) -> dict[str, Any] | list[str]:
    """Return models by label, or only their names if no model has a label.

    A model with the label of one in the file takes that one's place; the other fields, such as the dtype, stay.
    """
    if not any("=" in spec for spec in specs):
        return specs
    known, found = in_file if isinstance(in_file, dict) else {}, dict[str, Any]()
    for spec in specs:
        label, equals, name = spec.partition("=")
        if not equals:
            raise OptionError(f"--model {spec}: give every model a label, or none")
        if not label or not name:
            raise OptionError(f"--model takes MODEL or LABEL=MODEL, got {spec!r}")
        if label in found:
            raise OptionError(f"the model {label!r} comes twice")
        others = known.get(label)
        found[label] = {**(others if isinstance(others, dict) else {}), "model": name}
    return found


def _with_amounts(values: dict[str, Any], shares: Iterable[float], **amounts: Any) -> dict[str, Any]:
    """Use the amounts of the command line, if any, in place of all amounts in a file; refuse invalid shares."""
    from layerimp.pruner import checked_ratio

    for share in shares:
        checked_ratio(share, name="--ratio", instead="--count {}")
    given = {name: amount for name, amount in amounts.items() if amount is not None}
    return {name: value for name, value in values.items() if name not in amounts} | given if given else values


def _labelled(kind: str, specs: list[str], option: str = "") -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for spec in specs:
        label, equals, name = spec.rpartition("=")
        if not name or (equals and not label):
            raise OptionError(f"--{option or kind} takes {kind.upper()} or LABEL={kind.upper()}, got {spec!r}")
        label = label or name
        if label in found:
            raise OptionError(f"the {kind} {label!r} comes twice; give it a label: --{option or kind} LABEL={name}")
        found[label] = {"name": name}
    return found


def _protected(text: str) -> list[int]:
    """Return the blocks that an option protects."""
    from layerimp.steps import read_steps

    wrong = OptionError(f"--protect takes whole blocks such as 0,15-17, got {text!r}")
    try:
        steps = read_steps(text)
    except OptionError:
        raise wrong from None
    blocks = [step for step in steps if isinstance(step, int)]
    if len(blocks) < len(steps):
        raise wrong
    return blocks


def setting(text: str, example: str) -> tuple[str, str, Any]:
    """Return the label, the option and the value of one `--set`.

    Raises:
        OptionError: the text is not LABEL.OPTION=VALUE, or it gives a permission, which only a flag can give.
    """
    import yaml

    from layerimp.recipe import read_yaml, refuse_permissions

    target, equals, value = text.partition("=")
    label, dot, option = target.rpartition(".")
    if not (equals and dot and label and option):
        raise OptionError(f"--set takes LABEL.OPTION=VALUE, such as {example}, got {text!r}")
    try:
        parsed = read_yaml(value)
    except (yaml.YAMLError, ValueError):
        parsed = value
    refuse_permissions({option: parsed}, f"--set {text}")
    return label, option, parsed


def _with_options(recipe: Described, settings: list[str]) -> Described:
    """Return a recipe, of a run or a grid, with the values of all LABEL.OPTION=VALUE."""
    from layerimp.defaults import ALL
    from layerimp.registry.catalog import registry

    if not settings:
        return recipe
    document = recipe.model_dump()
    pruners = document["pruners"] if "pruners" in document else {document["pruner"]["name"]: document["pruner"]}
    homes = {**pruners, **document["evaluators"], **document.get("healers", {}), **document["scorers"]}
    for text in settings:
        label, option, parsed = setting(text, "avss.site=block_out")
        if label not in homes and ALL in document["scorers"] and label in registry().names("scorer"):
            # An option for one of the scorers in `all` counts as requesting that scorer by name.
            homes[label] = document["scorers"][label] = {"name": label, "options": {}}
        if label not in homes:
            raise unknown_name("label", label, homes, of=f"--set {text}")
        homes[label]["options"][option] = parsed
    said = recipe.model_fields_set | ({"scorers", "pruner", "pruners", "healers", "evaluators"} & document.keys())
    return type(recipe).model_validate({field: document[field] for field in said})

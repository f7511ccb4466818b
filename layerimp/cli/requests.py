"""Turns the options of a command line into the recipe of a run or a grid, and into permissions to run code.

A command passes all of its options at once, by the names of its parameters, so that each option is declared only once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from layerimp.bench.grid import Grid
from layerimp.cli.options import FIELDS, TEXT
from layerimp.cli.set_options import with_settings
from layerimp.errors import OptionError
from layerimp.indices import read_blocks
from layerimp.recipe import PERMISSIONS, Permissions, Recipe, read_recipe, validated
from layerimp.recipe.recipe import AMOUNTS
from layerimp.sizes.targets import split_targets

if TYPE_CHECKING:
    from pathlib import Path

    from layerimp.bench.grid import ModelSpec
    from layerimp.recipe import Experiment


def permissions(**given: Any) -> Permissions:
    """Return the permissions that the flags give."""
    return Permissions(**{name: given.get(name, False) for name in PERMISSIONS})


def recipe_from(recipe: Path | None = None, **given: Any) -> Recipe:
    """Make a recipe from a file (if any) and the options of the command line, which take precedence.

    Raises:
        InputError: an option is malformed, or the file and the options together are not a valid recipe.
    """
    return joined(read_recipe(recipe) if recipe else {}, given)


def joined(in_file: dict[str, Any], given: Mapping[str, Any]) -> Recipe:
    """Make a recipe from the fields in a file and the options of the command line; see `recipe_from`."""
    return with_settings(validated(Recipe, _values(Recipe, in_file, given)), given.get("set_") or [])


def grid_from(recipe: Path | None = None, **given: Any) -> Grid:
    """Make a grid from a file (if any) and the options of the command line, which take precedence.

    Raises:
        InputError: an option is malformed, or the file and the options together are not a valid grid.
    """
    in_file = read_recipe(recipe) if recipe else {}
    if given.get("model"):
        given["model"] = _models(given["model"], in_file.get("models"))
    grid = validated(Grid, _values(Grid, in_file, given))
    models = {label: _with_options(spec, given) for label, spec in grid.models.items()}
    return with_settings(grid.model_copy(update={"models": models}), given.get("set_") or [])


def _with_options(spec: ModelSpec, given: Mapping[str, Any]) -> ModelSpec:
    """Return a model of a grid with the options of the command line in place of its own fields."""
    changed: dict[str, Any] = {}
    if (dtype := given.get("dtype")) is not None:
        changed["dtype"] = dtype
    if given.get("tasks"):
        changed["tasks"] = None  # as the grid
    if spec.calibration is not None and (chosen := _chosen_text(given)):
        own = spec.calibration.model_dump(exclude_unset=True)
        changed["calibration"] = validated(type(spec.calibration), own | chosen)
    return spec.model_copy(update=changed)


def _chosen_text(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the calibration text that the command line gives."""
    text = {"source": given.get("calibration")} | {name: given.get(name) for name in TEXT.split()}
    return {name: value for name, value in text.items() if value is not None}


def _values(kind: type[Experiment], in_file: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a recipe's fields: those in a file, and those of options, which win.

    An amount among the options takes the place of all amounts in the file.

    Args:
        kind: What is described: a run or a grid.
        in_file: The fields in the file.
        given: The options, by the names of the command's parameters; None for those that are not given.
    """
    values: dict[str, Any] = {}
    for option, value in {**given, **read_limits(given.get("limit") or ()), **_kept(given.get("keep"))}.items():
        field = option if option in kind.model_fields else FIELDS.get(option, "")
        if value is not None and field in kind.model_fields:
            values[field] = _READERS[field](value) if field in _READERS else value
    if chosen := _chosen_text(given):
        others = in_file.get("calibration") or {}
        if not isinstance(others, dict):
            raise OptionError(f"calibration is a mapping, got {others!r}")
        values["calibration"] = others | chosen
    replaced = _AMOUNTS if _AMOUNTS & values.keys() else set()
    return {name: value for name, value in in_file.items() if name not in replaced} | values


def _tasks(texts: list[str]) -> list[str]:
    """Return the names of tasks that options list, with commas between."""
    text = ",".join(texts)
    names = [task.strip() for task in text.split(",") if task.strip()]
    if not names or ("none" in names and len(names) > 1):
        raise OptionError(f"--tasks takes names with commas between, or none alone, got {text!r}")
    return [] if names == ["none"] else names


def read_limits(texts: Iterable[str]) -> dict[str, Any]:
    """Return the fields of a recipe for limits such as `300` and `blimp=1340`; None for those that none sets.

    Raises:
        OptionError: a limit is malformed, or there are two of the same task or group.
    """
    limits: dict[str, int] = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        if not number.isdecimal() or not int(number):
            raise OptionError(f"--limit takes a number of documents, or NAME=NUMBER for a task or group, got {text!r}")
        if name in limits:
            raise OptionError(f"--limit {text}: there are two limits of {name or 'all tasks'}")
        limits[name] = int(number)
    return {"limit": limits.pop("", None), "limits": limits or None}


def _kept(text: str | None) -> dict[str, Any]:
    """Return the share to keep, and what it is a share of."""
    if text is None:
        return {}
    of, _, number = text.rpartition("=")
    with suppress(ValueError):
        if of in ("", "agreement"):
            return {"keep": float(number), "keep_of": of or "quality"}
    raise OptionError(f"--keep takes a share such as 0.95, or agreement=0.9, got {text!r}")


def _models(specs: list[str], in_file: Any) -> dict[str, Any] | list[str]:
    """Return models by label, or only their names if no model has a label.

    A model with the label of a model in the file takes its place; the other fields, such as the dtype, stay.
    """
    if not any("=" in spec for spec in specs):
        return specs
    if unlabelled := [spec for spec in specs if "=" not in spec]:
        raise OptionError(f"--model {unlabelled[0]}: give every model a label, or none")
    known = in_file if isinstance(in_file, dict) else {}
    others = {label: entry for label, entry in known.items() if isinstance(entry, dict)}
    models = _labelled("model", specs)
    return {label: others.get(label, {}) | {"model": spec["name"]} for label, spec in models.items()}


def _healers(specs: list[str]) -> dict[str, dict[str, Any]]:
    """Return healers by label; empty for `none`."""
    if "none" in specs and len(specs) > 1:
        raise OptionError("--heal takes healers, or none alone")
    return {} if specs == ["none"] else _labelled("healer", specs, option="heal")


def _labelled(kind: str, specs: list[str], option: str = "") -> dict[str, dict[str, Any]]:
    components: dict[str, dict[str, Any]] = {}
    for spec in specs:
        label, equals, name = spec.partition("=")
        name = name if equals else label
        if not label or not name:
            raise OptionError(f"--{option or kind} takes {kind.upper()} or LABEL={kind.upper()}, got {spec!r}")
        if label in components:
            advice = "give another label" if equals else "give it a label"
            raise OptionError(f"the {kind} {label!r} comes twice; {advice}: --{option or kind} LABEL={name}")
        components[label] = {"name": name}
    return components


_AMOUNTS = {*AMOUNTS, "keep_of", "ratios", "counts"}
"""The fields of a run and of a grid that say how much to remove, and of what."""
_READERS: dict[str, Callable[[Any], Any]] = {
    "scorers": partial(_labelled, "scorer"),
    "baselines": lambda _no: {},
    "pruners": partial(_labelled, "pruner"),
    "healers": _healers,
    "evaluators": partial(_labelled, "evaluator"),
    "targets": split_targets,
    "blocks": read_blocks,
    "protect": partial(read_blocks, what="--protect"),
    "tasks": _tasks,
    "verify": lambda _no: False,
}
"""By field, the function that reads the option that sets it, where that is written differently."""

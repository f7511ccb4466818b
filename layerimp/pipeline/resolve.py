"""Fills in what a recipe leaves open, for a run and for each model of a grid."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from layerimp.calibration.documents import TASK, task_of
from layerimp.defaults import PROSE, STARTER, STARTER_TASKS
from layerimp.errors import OptionError, listing
from layerimp.evaluation.selection import reads_tasks
from layerimp.pruner import Pruner
from layerimp.registry.assets import absolute, assets
from layerimp.registry.attribution import create
from layerimp.registry.catalog import registry

if TYPE_CHECKING:
    from collections.abc import Collection

    from layerimp.recipe import ComponentSpec, Recipe
    from layerimp.steps import Cuts


def resolve(recipe: Recipe) -> Recipe:
    """Return the recipe with a default calibration text and default tasks if it names none."""
    own = STARTER if recipe.model == STARTER else PROSE
    calibration = recipe.calibration.model_copy(update={"source": recipe.calibration.source or own})
    shipped = STARTER_TASKS if STARTER in assets().models else ()
    tasks = shipped if recipe.tasks is None else recipe.tasks
    return recipe.model_copy(update={"calibration": calibration, "tasks": tasks})


def anywhere(recipe: Recipe) -> Recipe:
    """Return the recipe with absolute paths, which mean the same in any working directory."""
    places = {name: absolute(path) for name in ("task_path", "data_dir") if (path := getattr(recipe, name)) is not None}
    source = source_anywhere(str(recipe.calibration.source))
    heal_text = None if recipe.heal_text is None else source_anywhere(recipe.heal_text)
    return recipe.model_copy(
        update={
            "heal_text": heal_text,
            **{name: Path(place) for name, place in places.items()},
            "model": model_anywhere(recipe.model),
            "calibration": recipe.calibration.model_copy(update={"source": source}),
            "tasks": tuple(map(_task_anywhere, recipe.tasks or ())),
        }
    )


def model_anywhere(model: str) -> str:
    """Return a name of a model that means the same in any working directory."""
    return absolute(model, assets().models)


def source_anywhere(source: str) -> str:
    """Return a name of a calibration text that means the same in any working directory."""
    task = task_of(source)
    return absolute(source, assets().texts) if task is None else f"{TASK}{_task_anywhere(task)}"


def _task_anywhere(task: str) -> str:
    return absolute(task) if task.endswith(".yaml") else task


def made_pruner(spec: ComponentSpec, cuts: Cuts) -> Pruner:
    """Make a pruner that can choose among all steps that may be cut.

    Raises:
        UnknownNameError: there is no such pruner.
        OptionError: an option is wrong, or the pruner only chooses among whole blocks and seams may be cut.
    """
    pruner = create("pruner", spec.name, spec.options)
    assert isinstance(pruner, Pruner)
    if cuts == "all" and not pruner.cuts_seams:
        names = registry().names("pruner")
        able = [name for name in names if getattr(registry().get("pruner", name), "cuts_seams", False)]
        raise OptionError(
            f"the pruner {spec.name!r} chooses among whole blocks alone, and --cuts all offers seams as well; pruners "
            f"that choose among both: {listing(able)}"
        )
    return pruner


def told(asked: Recipe, resolved: Recipe, reads: Collection[str]) -> str:
    """Return a line that lists the defaults in use and the options to change them; empty if there are none.

    Args:
        asked: The recipe as it was given.
        resolved: The resolved recipe.
        reads: Which of `calibration` and `tasks` the command reads.
    """
    used: dict[str, str] = {}
    if "model" not in asked.model_fields_set:
        used["--model DIR"] = f"model {resolved.model}"
    if "calibration" in reads and asked.calibration.source is None:
        used["--calibration FILE"] = f"calibration text {resolved.calibration.source}"
    if (
        "tasks" in reads
        and asked.tasks is None
        and resolved.tasks
        and any(map(reads_tasks, resolved.evaluators.values()))
    ):
        used["--tasks NAMES"] = f"tasks {', '.join(resolved.tasks)}"
    return f"by default: {'; '.join(used.values())} (your own: {' '.join(used)})" if used else ""

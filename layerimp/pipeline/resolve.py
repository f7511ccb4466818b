"""Settles what a recipe leaves open, for a run and for each model of a grid.

Before the weights are read, `resolve` fills in what the command can know; once the model is loaded, `settled` fills in
what depends on it. Amounts are checked against the number of blocks before weights are read or anything is created.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from layerimp.calibration.documents import TASK, task_of
from layerimp.calibration.rows import default_packing
from layerimp.defaults import HUB, LENGTH, PROSE, RATIO, STARTER, STARTER_TASKS
from layerimp.errors import OptionError
from layerimp.evaluation.selection import compares_with_intact, reads_tasks
from layerimp.models.configuration import CLASSIFIER, auto_class, blocks_stated, count_blocks
from layerimp.models.dtypes import name_of
from layerimp.models.traits import classifies, longest_row
from layerimp.pruner import Budget, PrunePlan, Pruner
from layerimp.recipe import check_label
from layerimp.registry.assets import absolute, assets
from layerimp.registry.attribution import create

if TYPE_CHECKING:
    from collections.abc import Collection

    from transformers import PretrainedConfig, PreTrainedModel

    from layerimp.recipe import CalibrationSpec, ComponentSpec, Permissions, Recipe


def resolve(recipe: Recipe) -> Recipe:
    """Return the recipe with a default calibration text and default tasks if it names none."""
    own = STARTER if recipe.model == STARTER else PROSE
    calibration = recipe.calibration.model_copy(update={"source": recipe.calibration.source or own})
    shipped = STARTER_TASKS if STARTER in assets().models else ()
    tasks = shipped if recipe.tasks is None else recipe.tasks
    return recipe.model_copy(update={"calibration": calibration, "tasks": tasks})


def check_own_text(recipe: Recipe, config: PretrainedConfig) -> None:
    """Refuse a classifier if the recipe names no text, since the text that ships is not of the kind that it reads.

    Args:
        recipe: The recipe, before it is resolved.
        config: The configuration of the model.

    Raises:
        OptionError: the model is a classifier, and the recipe names no text.
    """
    if recipe.calibration.source is None and auto_class(config) == CLASSIFIER:
        raise OptionError(
            f"{recipe.model} is a classifier: name text of the kind that it reads, with --calibration FILE, or "
            "--calibration task:NAME for the training split of a task"
        )


def settled(recipe: Recipe, model: PreTrainedModel, reads: Collection[str] = ("calibration",)) -> Recipe:
    """Return a resolved recipe with the values that depend on the loaded model.

    Args:
        recipe: The recipe, resolved.
        model: The model.
        reads: Which of `calibration` and `amount` the command reads; what it does not read stays open.

    Raises:
        OptionError: the text does not fit the model: there are labels for a language model, or its rows are too long.
    """
    update: dict[str, object] = {"dtype": name_of(model.dtype)}
    if "calibration" in reads:
        spec = recipe.calibration
        length = row_length(spec, model)
        if spec.label_field and not classifies(model):
            raise OptionError(f"labels ({spec.label_field!r}) are for classifiers; {type(model).__name__} is none")
        rows = task_of(str(spec.source)) is not None and classifies(model)
        packing = spec.packing or ("rows" if rows else default_packing(str(spec.source)))
        update["calibration"] = spec.model_copy(update={"max_length": length, "packing": packing})
    if "amount" in reads:
        update["ratio"] = default_ratio(recipe)
    return recipe.model_copy(update=update)


def row_length(spec: CalibrationSpec, model: PreTrainedModel) -> int:
    """Return the tokens per row of calibration text.

    Raises:
        OptionError: the model has fewer positions.
    """
    longest = longest_row(model) or math.inf
    length = int(spec.max_length or min(LENGTH, longest))
    if length > longest:
        raise OptionError(f"max_length {length} is beyond the model's {longest} positions")
    return length


def default_ratio(recipe: Recipe) -> float | None:
    """The share of the blocks to remove; None if the recipe names another amount, or blocks."""
    return RATIO if not recipe.names_amount and not recipe.blocks else recipe.ratio


def anywhere(recipe: Recipe) -> Recipe:
    """Return the recipe with absolute paths, which mean the same in any working directory."""
    source = source_anywhere(str(recipe.calibration.source))
    return recipe.model_copy(
        update={
            "heal_text": recipe.heal_text and source_anywhere(recipe.heal_text),
            "task_path": recipe.task_path and Path(absolute(recipe.task_path)),
            "data_dir": recipe.data_dir and Path(absolute(recipe.data_dir)),
            "evaluators": {label: _text_anywhere(spec) for label, spec in recipe.evaluators.items()},
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
    return absolute(source, {*assets().texts, HUB}) if task is None else f"{TASK}{_task_anywhere(task)}"


def _text_anywhere(spec: ComponentSpec) -> ComponentSpec:
    """Return an evaluator's specification in which a comparer's text means the same in any working directory."""
    text = spec.options.get("text")
    if not isinstance(text, str) or not compares_with_intact(spec):
        return spec
    return spec.model_copy(update={"options": {**spec.options, "text": source_anywhere(text)}})


def _task_anywhere(task: str) -> str:
    return absolute(task) if task.endswith(".yaml") else task


def create_pruner(spec: ComponentSpec) -> Pruner:
    """Create a pruner.

    Raises:
        UnknownNameError: there is no such pruner.
        OptionError: an option is wrong.
    """
    pruner = create("pruner", spec.name, spec.options)
    assert isinstance(pruner, Pruner)
    return pruner


def defaults_note(given: Recipe, resolved: Recipe, reads: Collection[str], *, names_method: bool = True) -> str:
    """Return a line that lists the defaults in use and the options to change them; empty if there are none.

    Args:
        given: The recipe as it was given.
        resolved: The resolved recipe.
        reads: Which of `calibration` and `tasks` the command reads.
        names_method: Whether the command takes the scorer, the pruner and the healers as options.
    """
    used: dict[str, str] = {}
    if names_method and "calibration" in reads and resolved.is_recommended:
        scorers, healed = f"scorer {', '.join(resolved.scorers)}", f"healed by {', '.join(resolved.healers)}"
        if "amount" not in reads:
            used["--scorer NAME"] = scorers
        elif resolved.names_all:
            used["--heal NAME"] = healed
        else:
            used["--scorer NAME"] = f"{scorers} with pruner {resolved.pruner.name}, {healed}"
    if "model" not in given.model_fields_set:
        used["--model DIR"] = f"model {resolved.model}"
    if "calibration" in reads and given.calibration.source is None:
        used["--calibration FILE"] = f"calibration text {resolved.calibration.source}"
    if (
        "tasks" in reads
        and given.tasks is None
        and resolved.tasks
        and any(map(reads_tasks, resolved.evaluators.values()))
    ):
        used["--tasks NAMES"] = f"tasks {', '.join(resolved.tasks)}"
    return f"by default: {'; '.join(used.values())} (your own: {' '.join(used)})" if used else ""


def budget_of(recipe: Recipe, num_blocks: int) -> Budget:
    """Return a recipe's budget for a model with `num_blocks` blocks.

    If the recipe names a size or a quality, this is the smallest budget that can follow from it.

    Raises:
        OptionError: no block or every block would be removed, or the fields of the recipe contradict each other.
    """
    if recipe.targets or recipe.keep is not None:
        return budget_for(recipe, max(1, len(recipe.blocks)), num_blocks)
    return Budget.of(
        num_blocks,
        ratio=default_ratio(recipe),
        count=recipe.count,
        blocks=recipe.blocks,
        protect=recipe.protect,
    )


def budget_for(recipe: Recipe, count: int, num_blocks: int) -> Budget:
    """Return a recipe's budget for removing `count` blocks from a model with `num_blocks` blocks.

    Raises:
        OptionError: no block or every block would be removed, or the fields of the recipe contradict each other.
    """
    return Budget.exactly(count, num_blocks, protect=recipe.protect, forced=recipe.blocks)


def named_plan(recipe: Recipe, num_blocks: int) -> PrunePlan:
    """Return the plan of a recipe that names all blocks that go."""
    blocks, model = list(budget_of(recipe, num_blocks).forced), model_anywhere(recipe.model)
    return PrunePlan(num_blocks=num_blocks, blocks=blocks, reason="named by the user", model=model)


def check_plans(plans: Mapping[str, PrunePlan], num_blocks: int) -> None:
    """Refuse plans that remove nothing, that are for another number of blocks, or whose labels are none.

    Raises:
        OptionError: a plan removes nothing, is for another number of blocks, or has a label that is not allowed; or
            there is no plan at all.
    """
    if not plans:
        raise OptionError("there is no plan in the file")
    for label, plan in plans.items():
        check_label(label)
        if not plan.blocks:
            raise OptionError(f"plan {label!r} removes nothing")
        if plan.num_blocks != num_blocks:
            raise OptionError(f"plan {label!r} is for {plan.num_blocks} blocks; the model has {num_blocks}")


def check_ahead(model: str, permissions: Permissions, check: Callable[[int], object]) -> None:
    """Run a check on a model's number of blocks, without reading its weights.

    The configuration states a number, which is cheap to read. If the check refuses that number, the blocks are counted.

    Args:
        model: The model.
        permissions: Which code that came with data may run.
        check: Called with the number of blocks; raises an `OptionError` if something contradicts that number.

    Raises:
        ModelError: the configuration cannot be read.
        OptionError: the check refuses the number of blocks.
    """
    trusted = permissions.trust_remote_code
    stated = blocks_stated(model, trust_remote_code=trusted)
    try:
        if stated is not None:
            check(stated)
            return
    except OptionError:
        pass
    if (counted := count_blocks(model, trust_remote_code=trusted)) is not None:
        check(counted)

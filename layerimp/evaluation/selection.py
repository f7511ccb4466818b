"""The evaluators of a run: made with their options, prepared, and checked against the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerimp.defaults import HARNESS
from layerimp.errors import ModelError, OptionError, PluginError, TaskError
from layerimp.evaluator import Evaluator
from layerimp.fidelity.comparer import Comparer
from layerimp.recipe import PERMISSIONS, ComponentSpec, Experiment, Permissions, Recipe
from layerimp.recipe.components import COMPARED_BRIEFLY
from layerimp.registry.attribution import attributing, create
from layerimp.registry.catalog import registry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transformers import PreTrainedModel

    from layerimp.calibration.sampling import CalibrationSet
    from layerimp.evaluator import DataFile
    from layerimp.progress import Progress

SHARED = frozenset({"tasks", "task_path", "data_dir", "limit", "limits", "num_fewshot", "batch_size", "seed"})
"""The settings of a run that an evaluator receives if its options have a field of that name."""


def reads_tasks(spec: ComponentSpec) -> bool:
    """Whether an evaluator measures tasks."""
    return "tasks" in registry().get("evaluator", spec.name).Config.model_fields


def compares_with_intact(spec: ComponentSpec) -> bool:
    """Whether an evaluator is a comparer."""
    return issubclass(registry().get("evaluator", spec.name), Comparer)


def comparer_options(recipe: Recipe) -> Comparer.Config:
    """Return the options of a recipe's comparer; the defaults of all comparers if it has none.

    Raises:
        InputError: an option is wrong.
    """
    for spec in filter(compares_with_intact, recipe.evaluators.values()):
        options: Comparer.Config = create("evaluator", spec.name, spec.options).config
        return options
    return Comparer.Config.model_validate({})


def compares(recipe: Recipe, evaluators: Mapping[str, Evaluator]) -> bool:
    """Whether a run measures quality, and so compares its scorers with baselines."""
    keeps = recipe.keep is not None and recipe.keep_of == "quality"
    return keeps or any(evaluator.kind == "quality" for evaluator in evaluators.values())


def is_requested(recipe: Recipe, label: str, kind: type[Experiment] = Recipe) -> bool:
    """Whether a recipe, from a run or a grid, names an evaluator or gives it an option, rather than by default."""
    default: Mapping[str, ComponentSpec] = kind.model_fields["evaluators"].default
    return recipe.evaluators.keys() != default.keys() or recipe.evaluators[label] not in (
        default[label],
        COMPARED_BRIEFLY,
    )


def without_comparers(
    recipe: Recipe, evaluators: Mapping[str, Evaluator], why: str, progress: Progress
) -> dict[str, Evaluator]:
    """Leave out evaluators that compare models with the intact one.

    Args:
        recipe: The recipe that the evaluators are from.
        evaluators: The evaluators, by label.
        why: Why no model can be compared.
        progress: Where to report what is left out.

    Raises:
        OptionError: the recipe requests one of them.
    """
    others = {label: evaluator for label, evaluator in evaluators.items() if not isinstance(evaluator, Comparer)}
    for label in evaluators.keys() - others.keys():
        if is_requested(recipe, label):
            raise OptionError(f"the evaluator {label} compares models with the intact one: {why}")
        progress.note(f"{label} is left out: {why}")
    return others


def with_text(
    recipe: Recipe, evaluators: Mapping[str, Evaluator], text: CalibrationSet, progress: Progress
) -> dict[str, Evaluator]:
    """Leave out evaluators that compare models with the intact one if there is no text for that.

    Raises:
        OptionError: the recipe requests one of them.
    """
    if text.rows:
        return dict(evaluators)
    why = f"{text.source} holds no text that the calibration set leaves over"
    return without_comparers(recipe, evaluators, why, progress)


def prepared(recipe: Recipe, permissions: Permissions, progress: Progress) -> dict[str, Evaluator]:
    """Make and prepare a recipe's evaluators, by label. An evaluator of tasks is left out if the recipe names no tasks.

    Raises:
        InputError: an option or a task is wrong, or there are two comparers.
    """
    wanted = {label: spec for label, spec in recipe.evaluators.items() if recipe.tasks or not reads_tasks(spec)}
    evaluators = {label: _create(spec, recipe, permissions, progress) for label, spec in wanted.items()}
    comparers = [label for label, evaluator in evaluators.items() if isinstance(evaluator, Comparer)]
    if len(comparers) > 1:
        raise OptionError(f"the evaluators {' and '.join(comparers)} both compare with the intact model; name one")
    return evaluators


def prepared_comparers(recipe: Recipe, permissions: Permissions, progress: Progress) -> dict[str, Evaluator]:
    """Make and prepare only what compares models with the intact one, by label; see `prepared`."""
    alone = {label: spec for label, spec in recipe.evaluators.items() if compares_with_intact(spec)}
    return prepared(recipe.model_copy(update={"evaluators": alone}), permissions, progress)


def prepared_for(label: str, task: str, recipe: Recipe, permissions: Permissions, progress: Progress) -> Evaluator:
    """Make and prepare one of a recipe's evaluators, for one of its tasks if the evaluator measures tasks.

    Raises:
        InputError: an option or the task is wrong.
    """
    spec = recipe.evaluators[label]
    return _create(spec, recipe, permissions, progress, task if reads_tasks(spec) else None)


def data_files(evaluators: Mapping[str, Evaluator]) -> list[DataFile]:
    """Return the local files whose rows prepared evaluators have read in place of data sets on the network."""
    return [file for evaluator in evaluators.values() for file in evaluator.data_files()]


def for_training(recipe: Recipe, task: str, permissions: Permissions, progress: Progress) -> Evaluator:
    """Make and prepare an evaluator that knows the training text of a task.

    Raises:
        InputError: an option or the task is wrong.
    """
    spec = next(filter(_knows_training, recipe.evaluators.values()), ComponentSpec(name=HARNESS))
    return _create(spec, recipe, permissions, progress, task)


def _create(
    spec: ComponentSpec, recipe: Recipe, permissions: Permissions, progress: Progress, task: str | None = None
) -> Evaluator:
    """Make and prepare an evaluator, for all tasks of the recipe or for a single one."""
    settings = recipe.model_dump(include=set(SHARED)) | {"allow_task_code": permissions.allow_task_code}
    cls = registry().get("evaluator", spec.name)
    if forbidden := PERMISSIONS.intersection(spec.options):
        raise OptionError(f"{min(forbidden)} is no option of an evaluator; give the flag on the command line")
    shared = {name: value for name, value in settings.items() if name in cls.Config.model_fields}
    evaluator = create("evaluator", spec.name, shared | spec.options)
    assert isinstance(evaluator, Evaluator)
    evaluator.progress = progress
    with attributing("evaluator", spec.name, cls):
        if task is not None:
            return evaluator.for_tasks(task)
        evaluator.prepare()
    return evaluator


def fitting(
    recipe: Recipe, evaluators: Mapping[str, Evaluator], model: PreTrainedModel, progress: Progress, *, lenient: bool
) -> tuple[dict[str, Evaluator], dict[str, str]]:
    """Choose the evaluators that can measure a model.

    Args:
        recipe: The recipe that the evaluators are from. Those that it does not request are left out if they do not fit,
            unless they measure tasks that it names.
        evaluators: The evaluators, by label.
        model: The model.
        progress: Where to report what is left out.
        lenient: Whether to leave out tasks that do not fit the model, because they are only defaults.

    Returns:
        The evaluators that fit, and for each that failed and was left out, the reason; both by label.

    Raises:
        PluginError: an evaluator failed, and there is no other.
        ModelError: a requested evaluator cannot measure this model.
        TaskError: a requested evaluator cannot measure this model on one of its tasks.
    """
    fit: dict[str, Evaluator] = {}
    failed: dict[str, str] = {}
    for label, evaluator in evaluators.items():
        try:
            with attributing("evaluator", label, type(evaluator)):
                evaluator.check(model)
        except (ModelError, TaskError) as error:
            measures_tasks = "tasks" in evaluator.Config.model_fields
            if (measures_tasks and not lenient) or (not measures_tasks and is_requested(recipe, label)):
                raise
            progress.note(f"{label} is left out: {error}")
        except PluginError as error:
            if len(evaluators) == 1:
                raise
            failed[label] = str(error)
            progress.note(f"the evaluator {label} is left out: {error}")
        else:
            fit[label] = evaluator
    return fit, failed


def _knows_training(spec: ComponentSpec) -> bool:
    cls = registry().get("evaluator", spec.name)
    return issubclass(cls, Evaluator) and cls.training_documents is not Evaluator.training_documents

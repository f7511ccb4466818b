"""The evaluators of a run: configured, prepared, and held against the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerimp.defaults import HARNESS
from layerimp.errors import ModelError, OptionError, TaskError
from layerimp.evaluator import Evaluator
from layerimp.recipe import PERMISSIONS, ComponentSpec, Permissions, Recipe
from layerimp.registry.attribution import blaming
from layerimp.registry.catalog import registry

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from layerimp.progress import Progress


class Panel:
    """Makes the evaluators that a recipe asks for.

    Args:
        recipe: The recipe, settled.
        permissions: What may run code.
        progress: Where they report progress.
        lenient: Whether tasks that do not suit a model are left out, since nobody named them.
    """

    def __init__(self, recipe: Recipe, permissions: Permissions, progress: Progress, *, lenient: bool) -> None:
        self._recipe, self._permissions, self._progress = recipe, permissions, progress
        self._lenient = lenient

    @property
    def reads_tasks(self) -> bool:
        """Whether one of the evaluators measures tasks, and so needs some."""
        return any(map(_reads_tasks, self._recipe.evaluators.values()))

    def prepared(self) -> dict[str, Evaluator]:
        """The evaluators by label, prepared. One that reads tasks is left out where none are named."""
        specs = self._recipe.evaluators
        wanted = {label: spec for label, spec in specs.items() if self._recipe.tasks or not _reads_tasks(spec)}
        return {label: self._made(spec) for label, spec in wanted.items()}

    def for_training(self, task: str) -> Evaluator:
        """An evaluator, prepared, that knows the training text of one task."""
        specs = filter(_knows_training, self._recipe.evaluators.values())
        return self._made(next(specs, ComponentSpec(name=HARNESS)), tasks=(task,))

    def _made(self, spec: ComponentSpec, **changes: object) -> Evaluator:
        recipe = self._recipe
        settings = {
            **recipe.model_dump(
                include={"tasks", "task_path", "data_dir", "limit", "num_fewshot", "batch_size", "seed"}
            ),
            "allow_task_code": self._permissions.allow_task_code,
        }
        cls = registry().get("evaluator", spec.name)
        if forbidden := PERMISSIONS.intersection(spec.options):
            raise OptionError(f"{min(forbidden)} is no option of an evaluator; give the flag on the command line")
        shared = {name: value for name, value in settings.items() if name in cls.Config.model_fields}
        options = registry().options("evaluator", spec.name, shared | spec.options | changes)
        with blaming("evaluator", spec.name, cls):
            evaluator = cls(options)
            assert isinstance(evaluator, Evaluator)
            evaluator.progress = self._progress
            evaluator.prepare()
        return evaluator

    def fitting(self, evaluators: dict[str, Evaluator], model: PreTrainedModel) -> dict[str, Evaluator]:
        """Those that the model suits; tasks that nobody named are left out, and that is said.

        Raises:
            ModelError: one that was asked for cannot measure this model.
            TaskError: nor on this task.
        """
        found = {}
        for label, evaluator in evaluators.items():
            try:
                evaluator.check(model)
            except (ModelError, TaskError) as error:
                if not self._lenient or "tasks" not in evaluator.Config.model_fields:
                    raise
                self._progress.note(f"no tasks: {error}")
                continue
            found[label] = evaluator
        return found


def _reads_tasks(spec: ComponentSpec) -> bool:
    return "tasks" in registry().get("evaluator", spec.name).Config.model_fields


def _knows_training(spec: ComponentSpec) -> bool:
    cls = registry().get("evaluator", spec.name)
    return issubclass(cls, Evaluator) and cls.training_documents is not Evaluator.training_documents

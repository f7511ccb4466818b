"""lm-eval's tasks, found first and loaded later: local rows stand in for the hub, and nothing is read needlessly.

lm-eval loads the data of a task while it makes the task. Here a task is made without data, so that the files of all
tasks can be looked for before the first of them is read.
"""

from __future__ import annotations

import inspect
from functools import cache, cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from layerimp.errors import LayerimpError, TaskError
from layerimp_harness import guard
from layerimp_harness.attribution import explained
from layerimp_harness.lm_eval_names import ConfigurableTask, TaskFactory, _factory
from layerimp_harness.local_rows import LocalRows, no_rows
from layerimp_harness.places import Source, reads_local_rows

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

ASKING = ("doc_to_text", "doc_to_choice", "doc_to_target")
"""The parts of a task that make a question from a row: a template, the name of a column, or a function."""


class Deferred:
    """What a task of lm-eval does differently here; mixed into the task's class by `deferred`.

    Args:
        config: lm-eval's configuration of the task.

    Attributes:
        stated: The configuration, until the task is loaded with it.
        rows: The local rows that stand in for the data set on the hub; None to read that.
        shots: The number of examples before each question; None if it is settled after loading.
        limit: The number of documents that are measured, from the first on; None for all.
    """

    rows: LocalRows | None = None
    shots: int | None = None
    limit: int | None = None
    _config: Any
    config: Any
    dataset: Any
    sampler: Any
    task_name: str

    def __init__(self, config: dict[str, Any] | None = None) -> None:
        self.stated = config or {}
        self._config = SimpleNamespace(task=self.stated.get("task"))

    @cached_property
    def source(self) -> Source:
        """The data set of the task."""
        own = {"dataset_path": getattr(self, "DATASET_PATH", None), "dataset_name": getattr(self, "DATASET_NAME", None)}
        return Source.of(own | self.stated)

    def load(self) -> None:
        """Make the task itself, with its data.

        Raises:
            TaskError: there are no rows, or the first one lacks a column.
        """
        name, made = self.task_name, super().__init__
        made(**({"config": self.stated} if "config" in inspect.signature(made).parameters else {}))
        self.config.task = name
        for key in ASKING if self.rows is not None else ():
            word = getattr(self.config, key, None)
            if isinstance(word, str) and word.isidentifier() and word not in self.eval_docs[0]:
                # lm-eval would take the name of the column as the text itself, and measure that.
                raise TaskError(f"task {name!r}: {key} reads the column {word!r}, which is not in {self.file}")

    @property
    def file(self) -> str:
        """The local file of the documents that are measured, for messages; empty if there is none."""
        return "" if self.rows is None else self.rows.where(self.source.measured)

    def download(self, *arguments: Any, **options: Any) -> None:
        """Load the data set: the local rows, or else what lm-eval loads from the hub."""
        if self.rows is None:
            super().download(*arguments, **options)  # type: ignore[misc]
        else:
            self.dataset = self.rows

    @cached_property
    def eval_docs(self) -> Any:
        """The documents that are measured, processed once."""
        documents = super().eval_docs  # type: ignore[misc]
        if self.limit is not None:
            first = range(min(self.limit, len(documents)))
            documents = documents.select(first) if hasattr(documents, "select") else documents[: self.limit]
        return documents

    def fewshot_docs(self) -> Any:
        """Return the documents for examples; none if there will be no example, or if their rows are missing."""
        return [] if self.shots == 0 or self._without_examples else super().fewshot_docs()  # type: ignore[misc]

    def fewshot_context(self, doc: Any, num_fewshot: int, *arguments: Any, **options: Any) -> Any:
        """Return the prompt of a document with examples.

        Raises:
            TaskError: the rows of the examples are missing, or are those that are measured.
        """
        if num_fewshot and self._without_examples:
            self.check_examples()
        return super().fewshot_context(doc, num_fewshot, *arguments, **options)  # type: ignore[misc]

    def check_examples(self) -> None:
        """Check that there are rows for examples, other than those that are measured.

        Raises:
            TaskError: there are none.
        """
        source, rows = self.source, self.rows
        if rows is None or not self._without_examples:
            return
        if source.examples == source.measured:
            raise TaskError(
                f"task {source.task!r} has no rows for examples but those that are measured "
                f"(split {source.measured}); measure it with none (--num-fewshot 0)"
            )
        raise no_rows(rows.missing(source.examples))

    @cached_property
    def _without_examples(self) -> bool:
        """Whether the local rows of examples are missing; lm-eval's own tasks take none from the measured rows."""
        source, file = self.source, (self.stated.get("metadata") or {}).get("config_source", "")
        if self.rows is None or not source.examples:
            return False
        if source.examples == source.measured and file and guard.is_builtin(Path(file)):
            return True
        return bool(self.rows.missing(source.examples))


@cache
def deferred(cls: type) -> type:
    """Return the class of a task, changed so that the task is loaded later."""
    return type(cls.__name__, (Deferred, cls), {"__module__": cls.__module__, "__doc__": cls.__doc__})


class DeferringFactory(TaskFactory):  # type: ignore[misc]
    """lm-eval's task factory, which makes tasks without their data."""

    def build(self, entry: Any, *, overrides: dict[str, Any] | None = None, registry: dict[str, Any]) -> Any:
        """Return the task, the group, or the list of a tag's tasks that `entry` describes, none of them loaded."""
        with patch.object(_factory, "ConfigurableTask", deferred(ConfigurableTask)):
            return super().build(entry, overrides=overrides, registry=registry)

    def _load_full_config(self, entry: Any, overrides: dict[str, Any] | None = None) -> dict[str, Any]:
        config: dict[str, Any] = super()._load_full_config(entry, overrides)
        if isinstance(config.get("class"), type):
            config["class"] = deferred(config["class"])
        return config


def find_rows(tasks: Iterable[Deferred], data_dir: Path) -> None:
    """Look for the local rows of tasks, before any of them is read.

    Args:
        tasks: The tasks, with their number of examples.
        data_dir: The data directory.

    Raises:
        TaskError: there is no such directory; or rows that will be read are missing, whose paths the text names; or a
            task has no rows for its examples but those that are measured.
    """
    directory = data_dir.expanduser().resolve()
    if not directory.is_dir():
        raise TaskError(f"the data directory {data_dir} does not exist")
    missing: list[str] = []
    asking: list[Deferred] = []
    for task in tasks:
        if not reads_local_rows(task.stated):
            continue
        task.rows = LocalRows(task.source, directory)
        asking += [task] if task.shots else []
        splits = dict.fromkeys((task.source.measured, task.source.examples if task.shots else ""))
        missing += filter(None, [task.rows.missing(split) for split in splits if split])
    if missing:
        raise no_rows(*missing)
    for task in asking:
        task.check_examples()


def load_all(tasks: Collection[Deferred], data_dir: Path | None) -> None:
    """Load tasks, with local rows if there is a data directory.

    Raises:
        TaskError: rows are missing, or a task cannot be loaded.
    """
    if data_dir is not None:
        find_rows(tasks, data_dir)
    for task in tasks:
        try:
            task.load()
        except LayerimpError:
            raise
        except Exception as error:
            raise explained(task.source.task, error, task.file) from error

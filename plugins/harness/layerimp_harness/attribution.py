"""Errors of tasks, in one line that says whose they are."""

from __future__ import annotations

from traceback import walk_tb
from typing import Any

from layerimp.errors import TaskError


def explained(name: str, error: BaseException, file: str = "") -> TaskError:
    """Return a one-line error that blames the task's data set if that could not be loaded, and otherwise the task.

    Args:
        name: What to call the task if it does not say so itself.
        error: The error.
        file: The local file that the task's documents come from; empty if there is none.
    """
    for frame, _line in walk_tb(error.__traceback__):
        owner: Any = frame.f_locals.get("self")
        if frame.f_code.co_name == "download" and hasattr(owner, "DATASET_PATH"):
            name = getattr(owner.config, "task", None) or name
            return TaskError(f"task {name!r}: its data set {owner.DATASET_PATH!r} cannot be loaded: {_reason(error)}")
    return TaskError(f"task {name!r}: {_reason(error)}{f'; its rows are those of {file}' if file else ''}")


def _reason(error: BaseException) -> str:
    missing = isinstance(error, KeyError)  # the text of a KeyError is only the key
    texts = [f"its data has no split or field {error}" if missing else f"{type(error).__name__}: {error}"]
    if error.__cause__ is not None:
        texts.append(str(error.__cause__))
    return " ".join("; ".join(texts).split())[:400]


def attribute_to_task(error: BaseException) -> None:
    """Raise a TaskError if the error comes from a task's own code on one of its documents, not from the model."""
    for frame, _line in walk_tb(error.__traceback__):
        task: Any = frame.f_locals.get("self")
        if frame.f_code.co_name in ("build_all_requests", "process_results") and hasattr(task, "task_name"):
            raise explained(task.task_name, error, task.file) from error

"""Check on the first row that a file has the columns that the templates and functions of a task read."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import jinja2
import numpy as np
from jinja2 import meta, nodes

from layerimp.errors import TaskError, listing

ASKING = ("doc_to_text", "doc_to_choice", "doc_to_target")
"""The parts of a task that make a question from a row: a template, the name of a column, or a function."""
TEMPLATES = (*ASKING, "description", "gen_prefix")
"""All parts that can be templates; in the further ones, a plain word is no column."""


class _Row(dict[str, Any]):
    """A row that keeps the names of the columns that it was asked for and lacks."""

    def __init__(self, columns: Mapping[str, Any]) -> None:
        super().__init__(columns)
        self.lacking: list[str] = []

    def __missing__(self, column: str) -> Any:
        self.lacking.append(column)
        raise KeyError(column)


def named_columns(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the columns that the templates of a task name, each with the first key of the task that names it.

    Args:
        config: lm-eval's configuration of the task, or the keys of it that make a question.
    """
    columns: dict[str, str] = {}
    for key in TEMPLATES:
        template = config.get(key)
        if not isinstance(template, str):
            continue
        if not template.isidentifier():
            columns |= {name: key for name in sorted(_undefined(template)) if name not in columns}
        elif key in ASKING:
            columns.setdefault(template, key)
    return columns


def _undefined(template: str) -> set[str]:
    """Return the names that a template takes from a row, except those that it can do without."""
    environment = jinja2.Environment()
    try:
        tree = environment.parse(template)
    except jinja2.TemplateSyntaxError:
        return set()  # lm-eval raises it again, with the task
    optional = {
        node.node.name
        for node in tree.find_all((nodes.Test, nodes.Filter))
        if node.name in ("defined", "undefined", "default", "d") and isinstance(node.node, nodes.Name)
    }
    return meta.find_undeclared_variables(tree) - optional - environment.globals.keys()


def check_row(task: str, file: str, row: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Check that a row has all columns from which its question is made.

    Args:
        task: The name of the task.
        file: The file that the row comes from.
        row: The row, after the task's own processing.
        config: The keys of the task that make a question.

    Raises:
        TaskError: the row lacks a column that a template names, or that a function reads.
    """
    for column, key in named_columns(config).items():
        if column not in row:
            raise no_column(task, file, column, key, row)
    for key in ASKING:
        if callable(function := config.get(key)):
            check_call(task, file, row, key, function)


def check_call(
    task: str, file: str, row: Mapping[str, Any], key: str, function: Callable[..., Any], *arguments: Any
) -> None:
    """Check that a task's function finds the columns that it reads in a row; other errors of it are left to lm-eval.

    Raises:
        TaskError: the function fails, because the row lacks a column.
    """
    watched = _Row(row)
    states = random.getstate(), np.random.get_state()  # a function may draw, and lm-eval calls it again
    try:
        function(watched, *arguments)
    except Exception as error:
        if watched.lacking:
            raise no_column(task, file, watched.lacking[-1], f"the function {key}", row) from error
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


def no_column(task: str, file: str, column: str, reader: str, row: Mapping[str, Any]) -> TaskError:
    """Return the error for a column that is not in a file."""
    return TaskError(
        f"task {task!r}: the first row of {file} has no column {column!r}, which {reader} reads; it has {listing(row)}"
    )

"""Mappings from labels, as recipes hold them: of components, and of the models of a grid."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

from layerimp.defaults import ORIGINAL
from layerimp.errors import OptionError

Labelled = TypeVar("Labelled", bound=dict[str, Any])


def check_label(label: str) -> None:
    """Refuse a label that is not a plain directory name, or that is reserved for the intact model.

    Raises:
        OptionError: the label is not a plain directory name, or it is reserved.
    """
    if label == ORIGINAL or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", label):
        raise OptionError(f"{label!r} cannot be a label; use letters, digits, '-', '_' and '.'")


def check_labels(values: Labelled) -> Labelled:
    """Refuse labels that are no labels; see `check_label`."""
    for label in values:
        check_label(label)
    return values


def check_any(values: Labelled) -> Labelled:
    """Refuse an empty mapping."""
    if not values:
        raise ValueError("at least one is needed")
    return values


def by_label(field: str, label_of: Callable[[str], str] = str) -> Callable[[Any], Any]:
    """Return a function that reads a list of names, and labels that serve as names, as a mapping from labels.

    Args:
        field: The field of an entry that holds its name.
        label_of: Returns the label of a name that has none.
    """

    def entry(label: str, value: Any) -> Any:
        if isinstance(value, str):
            return {field: value}
        return {field: label, **(value or {})} if isinstance(value, dict | None) else value

    def read(values: Any) -> Any:
        if isinstance(values, list | tuple):
            if not all(isinstance(name, str) for name in values):
                raise ValueError("a list holds names; use a mapping from labels for more")
            names, values = values, {label_of(name): name for name in values}
            if len(values) < len(names):
                raise ValueError("two of the names have one label; use a mapping from labels")
        return {label: entry(label, value) for label, value in values.items()} if isinstance(values, dict) else values

    return read

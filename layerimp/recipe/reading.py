"""Make a recipe from plain values or a file, with a one-line error for bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import ValidationError

from layerimp.component import Plain
from layerimp.errors import InputError, OptionError, first_problem, unknown_name
from layerimp.recipe.permissions import refuse_permissions

Described = TypeVar("Described", bound=Plain)


def validated(kind: type[Described], values: dict[str, Any]) -> Described:
    """Make a description, such as a recipe, from plain values.

    Raises:
        OptionError: a value is missing or wrong; the error names the first such value.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problem = first_problem(error)
        if problem.kind == "missing":
            raise OptionError(f"{problem.place} is missing from the recipe") from None
        if problem.kind == "extra_forbidden":
            raise unknown_name("recipe field", problem.place, _siblings(kind, problem.location)) from None
        raise OptionError(f"{problem}, got {problem.value!r}") from None


def check_kind(given: object, kind: type[Plain]) -> None:
    """Refuse what is no description of that kind, such as a plain dict.

    Raises:
        OptionError: it is something else.
    """
    if not isinstance(given, kind):
        raise OptionError(f"a layerimp.{kind.__name__} is needed, got a {type(given).__name__}")


def _siblings(owner: type[Plain], location: tuple[int | str, ...]) -> list[str]:
    """List the fields that exist at the place where an unknown one was given, each with its whole path."""
    for part in location[:-1]:
        if field := owner.model_fields.get(str(part)):
            owner = _part_in(field.annotation) or owner
    return [".".join([*map(str, location[:-1]), name]) for name in owner.model_fields]


def _part_in(annotation: Any) -> type[Plain] | None:
    """Return the part that a field holds, either directly or by label."""
    if isinstance(annotation, type) and issubclass(annotation, Plain):
        return annotation
    return next(filter(None, map(_part_in, get_args(annotation))), None)


class _Loader(yaml.SafeLoader):
    """Refuses a mapping with a duplicate key; YAML itself would silently keep the last value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a Python dictionary from a YAML mapping."""
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := next((key for key in keys if keys.count(key) > 1), None):
            raise yaml.constructor.ConstructorError(problem=f"{twice!r} is there twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


def read_yaml(text: str) -> Any:
    """Parse YAML.

    Raises:
        yaml.YAMLError: the text is not YAML, or a mapping has a duplicate key.
    """
    return yaml.load(text, _Loader)


def _read(text: str) -> Any:
    """Parse JSON or YAML. YAML does not allow all JSON, such as tabs and characters written as surrogate pairs."""
    try:
        return json.loads(text, object_pairs_hook=once_each)
    except json.JSONDecodeError:
        return read_yaml(text)


def once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a JSON object, and refuse duplicate keys."""
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"{next(key for key in keys if keys.count(key) > 1)!r} is there twice")
    return values


def read_recipe(path: Path) -> dict[str, Any]:
    """Read the values of a recipe file in YAML or JSON.

    Raises:
        InputError: the file cannot be read, is not a mapping, or asks for something that only the command line may
            allow.
    """
    try:
        values = _read(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the recipe {path}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        why = " ".join(str(error).replace('in "<unicode string>",', "at").split())
        raise InputError(f"the recipe {path} is not YAML: {why}") from None
    if not isinstance(values, dict):
        raise InputError(f"the recipe {path} is not a mapping of fields")
    refuse_permissions(values, f"the recipe {path}")
    if values.get("overwrite"):
        raise InputError(f"the recipe {path} cannot say overwrite; give the flag --overwrite instead")
    return values

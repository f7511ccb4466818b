"""The tables of documents: what the files that layerimp reads and writes hold, field by field."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from table_text import table

if TYPE_CHECKING:
    from pydantic import BaseModel

SHOWN_ELSEWHERE = frozenset({"recipe", "grid", "checkpoint"})
"""What has a schema, and no table among those of the documents."""


def described_models() -> dict[str, type[BaseModel]]:
    """Return the parts of recipe files, by the name under which a page requests a table."""
    from layerimp.bench.grid import Grid, ModelSpec
    from layerimp.recipe import CalibrationSpec, ComponentSpec, Recipe
    from layerimp.recipe.experiment import Experiment

    return {
        "recipe": Recipe,
        "experiment": Experiment,
        "calibration": CalibrationSpec,
        "component": ComponentSpec,
        "grid": Grid,
        "grid-model": ModelSpec,
    }


def tables(*names: str) -> str:
    """Return the tables of documents, by the names of their schemas: each part under a heading."""
    from layerimp.cli.schema import model_of

    return "\n\n".join(map(_typed, dict.fromkeys(part for name in names for part in parts(model_of(name)))))


def overview() -> str:
    """Return the table of all that has a JSON Schema, with the place of its fields on this page, and its schema."""
    from layerimp.cli.schema import DESCRIBED, model_of

    rows = []
    for name in DESCRIBED:
        model = model_of(name)
        page = "" if name in SHOWN_ELSEWHERE else f"[`{model.__name__}`](#{model.__name__.lower()})"
        summary = " ".join((model.__doc__ or "").partition(".")[0].split())
        rows.append((page, summary, f"[{name}](schemas/{name}.json)"))
    return table(("fields", "what it is", "schema"), rows)


def parts(document: type[BaseModel]) -> list[type[BaseModel]]:
    """Return the model of a document and the models in it, each once, from the whole to the details."""
    models = [document]
    for model in models:  # the list grows during the loop
        for field in model.model_fields.values():
            models += [inner for inner in _models(field.annotation) if inner not in models]
    return models


def _models(hint: Any) -> Iterator[type[BaseModel]]:
    """Yield the models in a type, but for the parts of recipes, which have a page of their own."""
    from typing import get_args

    if _is_model(hint) and hint not in described_models().values():
        yield hint
    for inner in get_args(hint):
        yield from _models(inner)


def _is_model(hint: Any) -> bool:
    from pydantic import BaseModel

    return isinstance(hint, type) and issubclass(hint, BaseModel)


def _typed(part: type[BaseModel]) -> str:
    fields = sorted(part.model_fields.items(), key=lambda field: field[0] != "schema_version")
    rows = [(f"`{name}`", _words(field.annotation), field.description or "") for name, field in fields]
    heading = f"### {part.__name__} {{ #{part.__name__.lower()} }}"
    return f"{heading}\n\n{' '.join((part.__doc__ or '').split())}\n\n{table(('field', 'type', 'meaning'), rows)}"


def _words(hint: Any) -> str:
    """Describe a type in words; parts with a table of their own are linked."""
    from collections.abc import Mapping
    from types import UnionType
    from typing import Union, get_args, get_origin

    from layerimp.cli.plugins import type_name

    args = get_args(hint)
    if hasattr(hint, "__metadata__"):
        return _words(args[0])
    if name := next((name for name, model in described_models().items() if model is hint), None):
        return f"[{name}](recipe.md#{'a-run' if name == 'recipe' else name})"
    if _is_model(hint):
        return f"[{hint.__name__}](#{hint.__name__.lower()})"
    if get_origin(hint) in (dict, Mapping, list) or args[1:] == (...,):
        inner = _words(args[0] if args[1:] == (...,) else args[-1])
        kind = "mapping" if get_origin(hint) in (dict, Mapping) else "list"
        return inner.replace("mapping of", "mappings of", 1) if "mapping" in inner else f"{kind} of {inner}"
    if get_origin(hint) is tuple:
        return f"pair of {_words(args[0])}s"
    if get_origin(hint) in (Union, UnionType):
        return " | ".join(map(_words, args))
    return "any value" if hint is Any else type_name(hint)

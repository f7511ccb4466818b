"""The tables of documents: what the files that layerimp reads and writes hold, field by field."""

from __future__ import annotations

from collections.abc import Iterator
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from table_text import table

if TYPE_CHECKING:
    from pydantic import BaseModel

DOCUMENTS = {
    "recipe": "recipe.recipe:Recipe",
    "grid": "bench.grid:Grid",
    "results": "report.document:Results",
    "shrink": "report.results.shrunk:ShrinkReport",
    "plan": "pruner:PrunePlan",
    "plans": "recipe.plans:PlanFile",
    "checkpoint": "checkpoint.record:Record",
    "healing": "report.results.healing:HealingReport",
    "comparison": "report.results.compared:ModelComparison",
    "inspection": "pipeline.inspection:Inspection",
    "dry-run": "pipeline.dry_run:DryRun",
    "plugins": "cli.documents:PluginList",
    "components": "cli.documents:ComponentList",
    "tasks": "cli.documents:TaskList",
    "task-details": "cli.documents:TaskDetailsList",
    "cache": "cli.documents:CacheList",
}
"""The module and the class of every document, by the name in its `schema_version`."""
SHOWN_ELSEWHERE = frozenset({"recipe", "grid", "checkpoint"})
"""The documents without a table among those of the documents."""


def model_of(name: str) -> type[BaseModel]:
    """Return the class of a document, by its name."""
    model: type[BaseModel] = resolve_name(f"layerimp.{DOCUMENTS[name]}")
    return model


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
    """Return the tables of documents, by their names: each part under a heading."""
    return "\n\n".join(map(_typed, dict.fromkeys(part for name in names for part in parts(model_of(name)))))


def overview() -> str:
    """Return the table of the documents with tables on this page: where the fields are, and what it is."""
    rows = []
    for model in (model_of(name) for name in DOCUMENTS if name not in SHOWN_ELSEWHERE):
        summary = " ".join((model.__doc__ or "").partition(".")[0].split())
        rows.append((f"[`{model.__name__}`](#{model.__name__.lower()})", summary))
    return table(("fields", "what it is"), rows)


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

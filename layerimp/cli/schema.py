"""`layerimp schema`: the JSON Schemas of recipes and documents, for editors and programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from json import dumps
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from layerimp.cli import options as o
from layerimp.cli.completion import NAMED, offers
from layerimp.defaults import ALL

if TYPE_CHECKING:
    from pydantic import BaseModel

    from layerimp.registry.names import Names

DESCRIBED = {
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
    "forecast": "pipeline.forecast:Forecast",
    "healing-forecast": "pipeline.heal_forecast:HealingForecast",
    "grid-forecast": "bench.forecast:GridForecast",
    "plugins": "cli.documents:PluginList",
    "components": "cli.documents:ComponentList",
    "tasks": "cli.documents:TaskList",
    "task-details": "cli.documents:TaskDetailsList",
    "rows": "cli.documents:DataFileList",
    "cache": "cli.documents:CacheList",
    "schemas": "cli.documents:SchemaList",
    "error": "cli.documents:ErrorReport",
}
"""The module and the class of all that has a schema, by the name in `schema_version`; completion imports no module."""
WRITTEN_BY_USERS = ("recipe", "grid")
DIALECT = "https://json-schema.org/draft/2020-12/schema"
EVERY = "Every installed scorer that is not named beside it."


@o.taking(
    "name json",
    name=o.option(o.Text, "One of them, to print its JSON Schema.", offered=offers(*DESCRIBED), argument="NAME"),
)
def schema(*, name: str | None, json: bool) -> int:
    """List what has a JSON Schema, or print one: of a recipe, for editors, or of a document that a command writes.

    Example: layerimp schema grid > grid.schema.json
    """
    from layerimp.cli.display import Screen
    from layerimp.cli.documents import SchemaList
    from layerimp.registry.names import installed_names

    screen = Screen(json=json)
    if name is not None:
        from layerimp.errors import unknown_name

        if name not in DESCRIBED:
            raise unknown_name("schema", name, DESCRIBED, otherwise="layerimp schema lists all.")
        screen.print_text(dumps(schema_of(name, installed_names), indent=2) + "\n")
        return 0
    summaries = {name: _first_sentence(model_of(name).__doc__ or "") for name in DESCRIBED}
    screen.present(SchemaList(schemas=summaries), (f"{name}: {summary}" for name, summary in summaries.items()))
    return 0


def model_of(name: str) -> type[BaseModel]:
    """Return the model of what has a schema: a recipe, a grid, or a document of any version."""
    model: type[BaseModel] = resolve_name(f"layerimp.{DESCRIBED[name]}")
    return model


def schema_of(name: str, installed: Callable[[], Names]) -> dict[str, Any]:
    """Return a JSON Schema.

    Args:
        name: What it describes.
        installed: Returns the names that the schemas of recipes offer; other names are valid too.
    """
    if name in WRITTEN_BY_USERS:
        return with_names({"$schema": DIALECT, **model_of(name).model_json_schema()}, installed())
    return {"$schema": DIALECT, **model_of(name).model_json_schema(mode="serialization")}


def _first_sentence(text: str) -> str:
    """Return the first sentence of a text, on one line."""
    return " ".join(text.split()).partition(". ")[0].removesuffix(".")


def with_names(schema: dict[str, Any], names: Names) -> dict[str, Any]:
    """Add the names of installed components and assets to the JSON Schema of a recipe, for editors to complete.

    A name becomes an example of a string, and a property of a mapping by label, because a label can be a name.
    """
    for part in (schema, *schema["$defs"].values()):
        for field, value in part["properties"].items():
            if kind := NAMED.get(field):
                offered = {ALL: EVERY} | names[kind] if field == "scorers" else names[kind]
                part["properties"][field] = _offering(value, offered)
    return schema


def _offering(part: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return a part of a schema with names, and their descriptions, in every place where a name can stand."""
    match part:
        case {"anyOf": choices}:
            return part | {"anyOf": [_offering(choice, names) for choice in choices]}
        case {"type": "string"}:
            return part | {"examples": list(names)}
        case {"type": "array", "items": items}:
            return part | {"items": _offering(items, names)}
        case {"type": "object", "additionalProperties": value}:
            return part | {
                "properties": {name: {"description": what, **value} for name, what in names.items()},
                "additionalProperties": _offering(value, names),
            }
    return part

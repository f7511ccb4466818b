"""`layerimp schema`: the JSON Schemas of recipes and documents, for editors and programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from layerimp.cli import options as o
from layerimp.cli.completion import NAMED, values
from layerimp.defaults import ALL

if TYPE_CHECKING:
    from layerimp.registry.names import Names

NAMES = (
    "recipe",
    "grid",
    "results",
    "plan",
    "plans",
    "checkpoint",
    "healing",
    "inspection",
    "forecast",
    "healing-forecast",
    "grid-forecast",
    "plugins",
    "components",
    "tasks",
    "task-details",
    "rows",
    "cache",
    "schemas",
    "error",
)
"""The names of all schemas, as in `schemas`; completion needs them without its imports."""
DIALECT = "https://json-schema.org/draft/2020-12/schema"
REFERENCE = "#/$defs/"
EVERY = "Every installed scorer that is not named beside it."


def schema(
    name: Annotated[
        str | None,
        typer.Argument(help="One of them, to print its JSON Schema.", autocompletion=values(*NAMES)),
    ] = None,
    json: o.json = False,
) -> None:
    """List what has a JSON Schema, or print one: of a recipe, for editors, or of a document that a command writes.

    Example: layerimp schema grid > grid.schema.json
    """
    from layerimp.cli.display import Screen
    from layerimp.registry.names import installed_names

    screen, known = Screen(json=json), schemas(installed_names)
    if name is not None:
        from layerimp.errors import unknown_name

        if name not in known:
            raise unknown_name("schema", name, known)
        screen.print_json(known[name]())
        return
    summaries = {known_name: _first_sentence(make()["description"]) for known_name, make in known.items()}
    if json:
        screen.print_json({"schema_version": "layerimp.schemas/1", "schemas": summaries})
        return
    for known_name, summary in summaries.items():
        screen.out.print(f"{known_name}: {summary}", soft_wrap=True)


def schemas(installed: Callable[[], Names]) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return the function that makes each JSON Schema, by the name of the document without its version.

    Args:
        installed: Returns the names that the schemas of recipes offer; other names are valid too.
    """
    from pydantic import TypeAdapter

    from layerimp.bench.grid import Grid
    from layerimp.checkpoint.record import Record
    from layerimp.recipe import Recipe
    from layerimp.report.schema import DOCUMENTS

    def written(kind: Any) -> dict[str, Any]:
        return {"$schema": DIALECT, **TypeAdapter(kind).json_schema(mode="serialization")}

    def offering(kind: Any) -> dict[str, Any]:
        return with_names({"$schema": DIALECT, **TypeAdapter(kind).json_schema()}, installed())

    documents = {version.removeprefix("layerimp.").partition("/")[0]: kind for version, kind in DOCUMENTS.items()}
    makers = {name: partial(written, kind) for name, kind in {**documents, "checkpoint": Record}.items()}
    return {
        name: {**makers, "recipe": partial(offering, Recipe), "grid": partial(offering, Grid)}[name] for name in NAMES
    }


def _first_sentence(text: str) -> str:
    """Return the first sentence of a text, on one line."""
    return " ".join(text.split()).partition(". ")[0].removesuffix(".")


def with_names(schema: dict[str, Any], names: Names) -> dict[str, Any]:
    """Add the names of installed components and assets to the JSON Schema of a recipe, for editors to complete.

    A name becomes an example of a string, and a property of a mapping by label, because a label can be a name.
    """
    definitions = schema["$defs"]
    for part in (schema, *list(definitions.values())):
        for field, value in part["properties"].items():
            if kind := NAMED.get(field):
                offered = {ALL: EVERY} | names[kind] if field == "scorers" else names[kind]
                part["properties"][field] = _offering(value, offered, f"{field}-by-label", definitions)
    return schema


def _offering(
    part: dict[str, Any], names: Mapping[str, str], entry: str, definitions: dict[str, Any]
) -> dict[str, Any]:
    """Return a part of a schema with the names in every place where a name can stand.

    Args:
        part: The part.
        names: The names, with their descriptions.
        entry: The key in the definitions for the schema of an entry under a label.
        definitions: The definitions of the whole schema.
    """

    def offering(inner: dict[str, Any]) -> dict[str, Any]:
        return _offering(inner, names, entry, definitions)

    if "$ref" in part:
        named = definitions[part["$ref"].removeprefix(REFERENCE)]
        if "options" not in named["properties"]:  # what it names has its own fields, which are offered there
            return part
        return {**named, "properties": named["properties"] | {"name": offering(named["properties"]["name"])}}
    match part:
        case {"anyOf": choices}:
            return part | {"anyOf": list(map(offering, choices))}
        case {"type": "string"}:
            return part | {"examples": list(names)}
        case {"type": "array", "items": items}:
            return part | {"items": offering(items)}
        case {"type": "object", "additionalProperties": value}:
            definitions[entry] = offering(value)
            ref = {"$ref": REFERENCE + entry}
            labels = {name: {"description": what, **ref} if what else ref for name, what in names.items()}
            return part | {"properties": labels, "additionalProperties": ref}
    return part

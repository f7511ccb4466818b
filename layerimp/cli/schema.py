"""`layerimp schema`: what recipes and documents hold, for editors and programs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import typer

from layerimp.cli import options as o

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema(
    name: Annotated[str | None, typer.Argument(help="One of them, to print its JSON Schema.")] = None,
    json: o.json = False,
) -> None:
    """List what has a JSON Schema, or print one: of a recipe, for editors, or of a document that a command writes.

    Example: layerimp schema grid > grid.schema.json
    """
    from layerimp.cli.display import Screen

    screen, known = Screen(json=json), schemas()
    if name is not None:
        from layerimp.errors import unknown_name

        if name not in known:
            raise unknown_name("schema", name, known)
        screen.print_json(known[name]())
        return
    summaries = {one: make()["description"].partition("\n")[0] for one, make in known.items()}
    if json:
        screen.print_json({"schemas": summaries})
        return
    for one, summary in summaries.items():
        screen.out.print(f"{one}: {summary}", soft_wrap=True)


def schemas() -> dict[str, Callable[[], dict[str, Any]]]:
    """What makes each JSON Schema, by its name, which is that of the document without its version."""
    from pydantic import TypeAdapter

    from layerimp.bench.grid import Grid
    from layerimp.recipe import Recipe
    from layerimp.report.schema import DOCUMENTS

    def made(kind: Any) -> dict[str, Any]:
        return {"$schema": DIALECT, **TypeAdapter(kind).json_schema()}

    documents = {version.removeprefix("layerimp.").partition("/")[0]: kind for version, kind in DOCUMENTS.items()}
    return {name: partial(made, kind) for name, kind in {"recipe": Recipe, "grid": Grid, **documents}.items()}

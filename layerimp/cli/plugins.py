"""`layerimp plugins` and `layerimp scorers`: what is installed."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from layerimp.cli import options as o


def plugins(json: o.json = False) -> None:
    """List the installed plugins, with what each provides and why any failed."""
    from layerimp.cli.display import Screen
    from layerimp.registry.catalog import registry

    records = registry().plugins.records
    rows = [
        {
            "name": record.name,
            "status": record.status,
            "distribution": record.distribution,
            "version": record.version,
            "hooks": record.hooks,
            "components": registry().components_of(record.name) if record.status == "ok" else {},
            "error": record.error,
            "seconds": round(record.seconds, 3),
        }
        for record in records
    ]
    Screen(json=json).show_plugins(rows)


def scorers(
    name: Annotated[str | None, typer.Argument(help="A scorer, to see its options.")] = None, json: o.json = False
) -> None:
    """List the scorers, or one scorer's options with their type, default and description."""
    from layerimp.cli.display import Screen
    from layerimp.registry.catalog import registry

    names = registry().names("scorer") if name is None else [name]
    Screen(json=json).show_scorers([_description(scorer) for scorer in names], details=name is not None)


def _description(name: str) -> dict[str, Any]:
    from layerimp.registry.catalog import registry

    cls = registry().get("scorer", name)
    return {
        "name": name,
        "plugin": registry().origin("scorer", name),
        "summary": cls.summary(),
        "reference": cls.reference,
        "options": [
            {
                "name": option,
                "type": type_name(field.annotation),
                "default": field.get_default(call_default_factory=True, validated_data={}),
                "description": field.description or "",
            }
            for option, field in cls.Config.model_fields.items()
        ],
    }


def type_name(annotation: Any) -> str:
    """A type as a user would write it: `float`, `a | b` for a choice, `list of float` for several."""
    from pathlib import Path
    from types import NoneType, UnionType
    from typing import Annotated, Literal, Union, get_args, get_origin

    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " | ".join(map(str, args))
    if origin in (Union, UnionType):
        return " | ".join(map(type_name, args))
    if origin is Annotated:
        return type_name(args[0])
    if origin in (list, tuple):
        return f"list of {type_name(args[0])}"
    if origin is dict:
        return f"mapping of {type_name(args[1])}"
    plain = {NoneType: "null", Path: "path"}
    return plain.get(annotation) or (annotation.__name__ if isinstance(annotation, type) else str(annotation))

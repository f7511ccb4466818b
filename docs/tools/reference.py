"""The parts of pages that are generated from the code: commands, options, recipes, results, components.

A page requests a part by a line such as `<!-- generated: options scorer avss -->`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import documents
import measured
from table_text import table

if TYPE_CHECKING:
    from layerimp.registry.catalog import Kind

ROOT = Path(__file__).parents[2]
DIRECTIVE = re.compile(r"^<!-- generated: (\S+)(.*?) -->$", re.MULTILINE)
KINDS: dict[Kind, str] = {
    "scorer": "choose/scorers.md",
    "pruner": "choose/pruners.md",
    "healer": "repair/healers.md",
    "evaluator": "measure/evaluators.md",
}
"""The page in docs/ that lists the components of a kind; those with pages of their own have them beside it."""


def expanded(markdown: str) -> str:
    """Return a page with all generated parts inserted.

    Raises:
        KeyError: the page requests a part that does not exist.
    """
    return DIRECTIVE.sub(lambda match: _PARTS[match[1]](*match[2].split()), markdown)


def commands() -> dict[str, Any]:
    """Return every command of the command line as a click command, by name."""
    from typer.main import get_command

    from layerimp.cli import app

    group: Any = get_command(app)
    return dict(group.commands)


def _types(command: str) -> dict[str, Any]:
    """Return the type of one value of each parameter of a command, by name."""
    from types import UnionType
    from typing import Union, get_args, get_origin, get_type_hints

    from layerimp.cli import app

    (function,) = (c.callback for c in app.registered_commands if c.callback and c.callback.__name__ == command)
    hints = {}
    for name, hint in get_type_hints(function).items():
        while get_origin(hint) in (Union, UnionType, list):  # X | None, list[X]
            hint = get_args(hint)[0]
        hints[name] = hint
    return hints


def _command_list() -> str:
    return table(("command", ""), [(f"[`layerimp {n}`](#{n})", c.short_help) for n, c in commands().items()])


def _command(name: str) -> str:
    command = commands()[name]
    text, _, example = command.help.strip().partition("\n\nExample: ")
    types = _types(name)
    names = {p.name: _option_names(p, types[p.name]) for p in command.params}
    arguments = [names[p.name] for p in command.params if p.param_type_name == "argument"]
    usage = " ".join(["layerimp", name, *arguments, "[OPTIONS]"])
    parts = [f"## {name}", text, f"```text\n{usage}\n```"]
    if example:
        parts.append(f"For example:\n\n```bash\n{example}\n```")
    options = [(f"`{names[p.name]}`", *_default_and_meaning(p)) for p in command.params]
    parts.append(table(("option", "default", "meaning"), options))
    return "\n\n".join(parts)


def _option_names(parameter: Any, kind: Any) -> str:
    if parameter.param_type_name == "argument":
        name = str(parameter.metavar or parameter.name.upper())
        return name if parameter.required else f"[{name}]"
    return ", ".join([*parameter.opts, *parameter.secondary_opts]) + ("" if parameter.is_flag else f" {_metavar(kind)}")


def _metavar(kind: Any) -> str:
    from typing import get_args

    if choices := get_args(kind):  # of a Literal
        return "|".join(choices)
    return {int: "N", float: "X", Path: "PATH"}.get(kind, "TEXT")


def _default_and_meaning(parameter: Any) -> tuple[str, str]:
    """Return an option's default, if its help or its declaration names one, and the rest of its help."""
    meaning, _, default = (parameter.help or "").partition(" Default: ")
    if not default and isinstance(parameter.default, str | int | float) and not parameter.is_flag:
        default = f"`{parameter.default}`"
    return default.removesuffix("."), meaning


def _options(kind: Kind, name: str) -> str:
    from layerimp.registry.catalog import registry, settings

    fields = registry().get(kind, name).Config.model_fields
    if not fields:
        return f"The {kind} `{name}` has no options."
    shown = f"Options of `{name}`, set with `--set {name}.OPTION=VALUE`:\n\n{_fields(fields, 'option')}"
    named = [f"`{variant}` for `{settings(preset)}`" for variant, preset in registry().variants(kind, name).items()]
    return f"{shown}\n\nVariants with names of their own: {', '.join(named)}." if named else shown


def _model(name: str) -> str:
    kind = documents.described_models()[name]
    own = kind.__annotations__  # inherited fields have a table of their own
    return _fields({field: info for field, info in kind.model_fields.items() if field in own}, "field")


def _fields(fields: dict[str, Any], what: str) -> str:
    rows = [
        (f"`{name}`", _type(field), f"`{_value(field)}`" if not field.is_required() else "", field.description or "")
        for name, field in fields.items()
    ]
    return table((what, "type", "default", "meaning"), rows)


def _type(field: Any) -> str:
    from layerimp.cli.plugins import type_name

    limits = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    bounds = [
        f"{sign} {getattr(limit, name)}"
        for limit in field.metadata
        for name, sign in limits.items()
        if getattr(limit, name, None) is not None
    ]
    text = ", ".join([type_name(field.annotation), *bounds])
    for name, model in documents.described_models().items():
        text = re.sub(rf"\b{model.__name__}\b", f"[{name}](#{name})", text)
    return text


def _value(field: Any) -> str:
    value = field.get_default(call_default_factory=True, validated_data={})
    return _shown(value)


def _shown(value: Any) -> str:
    """Return a default as written in a recipe, with components by name."""
    from pydantic import BaseModel

    if isinstance(value, BaseModel):
        said = {name: item for name, item in value.model_dump().items() if item not in (None, {}, ())}
        return said["name"] if list(said) == ["name"] else said["model"] if list(said) == ["model"] else "{…}"
    if isinstance(value, dict):
        return f"[{', '.join(map(str, value))}]" if value else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_shown, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def shipped(kind: Kind) -> list[str]:
    """Return the names of layerimp's own components of a kind; other installed plugins are not documented here."""
    from layerimp.registry.catalog import registry

    catalog = registry()
    ours = {record.name for record in catalog.plugins.records if record.distribution == "layerimp"}
    return [name for name in catalog.names(kind) if catalog.origin(kind, name) in ours]


def _components(kind: Kind) -> str:
    from layerimp.registry.catalog import registry

    rows = []
    for name in shipped(kind):
        cls = registry().get(kind, name)
        further = "".join(f", `{variant}`" for variant in registry().variants(kind, name))
        rows.append((f"[`{name}`]({page_of(kind, name)}){further}", cls.summary(), cls.reference))
    return table((kind, "", "source"), rows)


def page_of(kind: Kind, name: str) -> str:
    """Return the page beside that of the kind, and the place on it, with a component's options."""
    wanted = f"<!-- generated: options {kind} {name} -->"
    folder = (ROOT / "docs" / KINDS[kind]).parent
    for page in sorted(folder.glob("*.md")):
        before, marker, _ = page.read_text(encoding="utf-8").partition(wanted)
        if marker:
            headings = re.findall(r"^## (.+)$", before, re.MULTILINE)
            return page.name + (f"#{name}" if name in headings else "")
    raise KeyError(f"no page in {folder} holds {wanted}")


def _file(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def _figure(name: str) -> str:
    """A picture in the colours of the site, which has a switch between light and dark."""
    return _file(f"docs/figures/{name}.svg")


def _layers() -> str:
    """The table of the layers, from the top: each module with the first sentence of its docstring."""
    import ast
    import tomllib

    settings = tomllib.loads(_file("pyproject.toml"))
    contract = next(
        entry for entry in settings["tool"]["importlinter"]["contracts"] if entry.get("containers") == ["layerimp"]
    )
    rows = []
    for layer in contract["layers"]:
        for number, name in enumerate(layer.split(" | ")):
            place = ROOT / "layerimp" / name
            file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
            text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
            rows.append(("– " * (number > 0) + f"`{name}`", text.partition("\n\n")[0]))
    return table(("module", "content"), rows)


def _contracts(kind: str) -> str:
    """The contracts of a kind of component, or those of every component, each under a heading."""
    from layerimp.testing.checks import KINDS as CONTRACTS
    from layerimp.testing.contracts import Contracts, methods

    named = {checked.__name__: own for checked, own in CONTRACTS.items()} | {"Component": Contracts}
    return "\n\n".join(
        f"### {name.capitalize()}\n\n{' '.join((method.__doc__ or '').split())}"
        for name, method in methods(named[kind]).items()
    )


_PARTS: dict[str, Callable[..., str]] = measured.PARTS | {
    "command": _command,
    "commands": _command_list,
    "contracts": _contracts,
    "components": _components,
    "document-list": documents.overview,
    "documents": documents.tables,
    "fields": _model,
    "figure": _figure,
    "file": _file,
    "layers": _layers,
    "options": _options,
}

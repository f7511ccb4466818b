"""The parts of pages that are generated from the code: commands, options, recipes, results, components.

A page requests a part by a line such as `<!-- generated: options scorer avss -->`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import BaseModel

    from layerimp.registry.catalog import Kind
    from layerimp.registry.names import Names

ROOT = Path(__file__).parents[2]
DIRECTIVE = re.compile(r"^<!-- generated: (\S+)(.*?) -->$", re.MULTILINE)
SHOWN_ELSEWHERE = frozenset({"recipe", "grid", "checkpoint"})
"""What has a schema, and no table among those of the documents."""
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
    return DIRECTIVE.sub(lambda found: _PARTS[found[1]](*found[2].split()), markdown)


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
    found = {}
    for name, hint in get_type_hints(function).items():
        while get_origin(hint) in (Union, UnionType, list):  # X | None, list[X]
            hint = get_args(hint)[0]
        found[name] = hint
    return found


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


def schema_files() -> dict[str, str]:
    """Return the JSON Schemas as the site serves them, by name: `reference/schemas/NAME.json`."""
    from layerimp.cli.schema import DESCRIBED, schema_of

    return {name: json.dumps(schema_of(name, _shipped_names), indent=2) + "\n" for name in DESCRIBED}


def _shipped_names() -> Names:
    """What the schemas of recipes offer: of components, layerimp's own."""
    from layerimp.registry.catalog import registry
    from layerimp.registry.names import KINDS, installed_names

    known = installed_names()
    return known | {
        kind: {
            name: known[kind][name] for shown in shipped(kind) for name in (shown, *registry().variants(kind, shown))
        }
        for kind in KINDS
    }


def _command_list() -> str:
    return _table(("command", ""), [(f"[`layerimp {n}`](#{n})", c.short_help) for n, c in commands().items()])


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
    parts.append(_table(("option", "default", "meaning"), options))
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
    table = f"Options of `{name}`, set with `--set {name}.OPTION=VALUE`:\n\n{_fields(fields, 'option')}"
    named = [f"`{variant}` for `{settings(preset)}`" for variant, preset in registry().variants(kind, name).items()]
    return f"{table}\n\nVariants with names of their own: {', '.join(named)}." if named else table


def _model(name: str) -> str:
    kind = described_models()[name]
    own = kind.__annotations__  # inherited fields have a table of their own
    return _fields({field: info for field, info in kind.model_fields.items() if field in own}, "field")


def _fields(fields: dict[str, Any], what: str) -> str:
    rows = [
        (f"`{name}`", _type(field), f"`{_value(field)}`" if not field.is_required() else "", field.description or "")
        for name, field in fields.items()
    ]
    return _table((what, "type", "default", "meaning"), rows)


def _type(field: Any) -> str:
    from layerimp.cli.plugins import type_name

    limits = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    found = [
        f"{sign} {getattr(limit, name)}"
        for limit in field.metadata
        for name, sign in limits.items()
        if getattr(limit, name, None) is not None
    ]
    text = ", ".join([type_name(field.annotation), *found])
    for name, model in described_models().items():
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

    found = registry()
    ours = {record.name for record in found.plugins.records if record.distribution == "layerimp"}
    return [name for name in found.names(kind) if found.origin(kind, name) in ours]


def _components(kind: Kind) -> str:
    from layerimp.registry.catalog import registry

    rows = []
    for name in shipped(kind):
        cls = registry().get(kind, name)
        further = "".join(f", `{variant}`" for variant in registry().variants(kind, name))
        rows.append((f"[`{name}`]({page_of(kind, name)}){further}", cls.summary(), cls.reference))
    return _table((kind, "", "source"), rows)


def page_of(kind: Kind, name: str) -> str:
    """Return the page beside that of the kind, and the place on it, with a component's options."""
    wanted = f"<!-- generated: options {kind} {name} -->"
    folder = (ROOT / "docs" / KINDS[kind]).parent
    for page in sorted(folder.glob("*.md")):
        before, found, _ = page.read_text(encoding="utf-8").partition(wanted)
        if found:
            headings = re.findall(r"^## (.+)$", before, re.MULTILINE)
            return page.name + (f"#{name}" if name in headings else "")
    raise KeyError(f"no page in {folder} holds {wanted}")


def _documents(*names: str) -> str:
    from layerimp.cli.schema import model_of

    return "\n\n".join(map(_typed, dict.fromkeys(part for name in names for part in parts(model_of(name)))))


def _document_list() -> str:
    """The table of all that has a JSON Schema, with the place of its fields on this page, and its schema."""
    from layerimp.cli.schema import DESCRIBED, model_of

    rows = []
    for name in DESCRIBED:
        model = model_of(name)
        page = "" if name in SHOWN_ELSEWHERE else f"[`{model.__name__}`](#{model.__name__.lower()})"
        summary = " ".join((model.__doc__ or "").partition(".")[0].split())
        rows.append((page, summary, f"[{name}](schemas/{name}.json)"))
    return _table(("fields", "what it is", "schema"), rows)


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
    return f"{heading}\n\n{' '.join((part.__doc__ or '').split())}\n\n{_table(('field', 'type', 'meaning'), rows)}"


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


def _file(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def _figure(name: str) -> str:
    """A picture in the colours of the site, which has a switch between light and dark."""
    return re.sub(r"<style>.*?</style>", "", _file(f"docs/figures/{name}.svg"))


def _choices(what: str, model: str = "") -> str:
    """A table of what methods choose, of a model or of all, or of what it bears: see the functions below."""
    import choice_tables as tables
    import claims
    import power

    if model:
        head, rows = {"all": tables.of_model, "ahead": tables.ahead, "tasks": tables.by_task}[what](model)
        return _table(head, rows) if rows else "Not measured yet."
    parts = {"summary": tables.summary, "sites": tables.sites, "sets": tables.sets}
    return _table(*(parts | {"claims": claims.table, "power": power.table})[what]())


def _published() -> str:
    """Table 1 of the AVSS paper."""
    import published

    return _table(*published.table())


def _seams(model: str = "") -> str:
    """A table of what seams are worth: for one model at all numbers of blocks, or for all models at the largest."""
    import seams_compared

    return _table(*(seams_compared.table(model) if model else seams_compared.summary()))


def _architectures(what: str, head: str = "") -> str:
    """What was found for every type of model: `counts`, `conditions`, `scorers`, and by head `exact` and `others`."""
    import architecture_tables as tables

    if what in ("conditions", "exact"):
        return tables.exact(head) if head else tables.conditions()
    return _table(*(tables.others(head) if head else getattr(tables, what)()))


def _healing(how: str) -> str:
    """A table of what healing brings back: `linear`, or by training."""
    import healed
    import trained

    return _table(*{"linear": healed.table, "training": trained.table}[how]())


def _layers() -> str:
    """The table of the layers, from the top: each module with the first sentence of its docstring."""
    import ast
    import tomllib

    settings = tomllib.loads(_file("pyproject.toml"))
    contract = next(
        one for one in settings["tool"]["importlinter"]["contracts"] if one.get("containers") == ["layerimp"]
    )
    rows = []
    for layer in contract["layers"]:
        for number, name in enumerate(layer.split(" | ")):
            place = ROOT / "layerimp" / name
            file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
            text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
            rows.append(("– " * (number > 0) + f"`{name}`", text.partition("\n\n")[0]))
    return _table(("module", "content"), rows)


def _contracts(kind: str) -> str:
    """The contracts of a kind of component, or those of every component, each under a heading."""
    from layerimp.testing.checks import KINDS as CONTRACTS
    from layerimp.testing.contracts import Contracts, methods

    named = {checked.__name__: own for checked, own in CONTRACTS.items()} | {"Component": Contracts}
    return "\n\n".join(
        f"### {name.capitalize()}\n\n{' '.join((method.__doc__ or '').split())}"
        for name, method in methods(named[kind]).items()
    )


def _lm_eval(what: str) -> str:
    """A table that sets layerimp's model beside that of lm_eval: `equality`, or `speed`."""
    import beside_lm_eval

    return _table(*{"equality": beside_lm_eval.equality, "speed": beside_lm_eval.speed}[what]())


def _distances() -> str:
    """The table of how far pruned and rounded models are from the intact ones."""
    import distances

    return _table(*distances.table())


def _rounded() -> str:
    """The table of rounded weights beside removed blocks."""
    import rounded

    return _table(*rounded.table())


def _shrunk(what: str) -> str:
    """What `layerimp shrink` made of models: the table of `all`, the `short` one, another of it, or the `figure`."""
    import quality_and_speed
    import shrunk

    if what == "figure":
        return quality_and_speed.picture()
    tables = {"all": shrunk.table, "short": shrunk.short}
    tables |= {"continuations": shrunk.continuations, "trainings": shrunk.trainings}
    return _table(*tables[what]())


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


_PARTS: dict[str, Callable[..., str]] = {
    "architectures": _architectures,
    "choices": _choices,
    "command": _command,
    "commands": _command_list,
    "contracts": _contracts,
    "components": _components,
    "distances": _distances,
    "document-list": _document_list,
    "documents": _documents,
    "fields": _model,
    "figure": _figure,
    "file": _file,
    "healing": _healing,
    "layers": _layers,
    "lm-eval": _lm_eval,
    "options": _options,
    "published": _published,
    "rounded": _rounded,
    "seams": _seams,
    "shrunk": _shrunk,
}

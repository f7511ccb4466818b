"""`layerimp plugins`, the commands that list components of a kind, and `layerimp tasks`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerimp.cli import options as o
from layerimp.errors import OptionError, UnknownNameError

if TYPE_CHECKING:
    from layerimp.cli.documents import Component
    from layerimp.registry.catalog import Kind


@o.taking("json")
def plugins(*, json: bool) -> int:
    """List the installed plugins, with what each provides and why any failed."""
    from layerimp.cli import listings
    from layerimp.cli.display import Screen
    from layerimp.cli.documents import Plugin, PluginList
    from layerimp.registry.catalog import registry

    installed = [Plugin.model_validate(record, from_attributes=True) for record in registry().plugins.records]
    document = PluginList(plugins=installed)
    Screen(json=json).present(document, listings.plugins(document))
    return 0


def _lister(kind: Kind) -> o.Command:
    """Make the command that lists the components of a kind, or one component's options."""

    def command(*, name: str | None, json: bool) -> int:
        from layerimp.cli import listings
        from layerimp.cli.display import Screen
        from layerimp.cli.documents import ComponentList
        from layerimp.registry.catalog import registry

        names_shown = registry().names(kind) if name is None else [name]
        components = [_description(kind, shown) for shown in names_shown]
        document = ComponentList.model_validate({f"{kind}s": components})
        Screen(json=json).present(document, listings.components(components, details=name is not None))
        return 0

    command.__name__ = f"{kind}s"
    command.__doc__ = f"List the {kind}s, or one {kind}'s options with their type, default and description."
    argument = o.option(o.Text, "The name of one, to see its options.", argument="NAME")
    return o.taking("name json", name=argument)(command)


scorers, pruners = _lister("scorer"), _lister("pruner")
healers, evaluators = _lister("healer"), _lister("evaluator")
_OWN: dict[str, Any] = {
    "containing": o.option(
        o.Text,
        "A part of the name; with it, all of lm-evaluation-harness is searched.",
        argument="TEXT",
    ),
    "show": o.option(
        o.Text, "Tasks: say splits, examples, metrics, columns, and where --data-dir has rows looked for."
    ),
}


@o.taking("containing show task_path data_dir allow_task_code json", **_OWN)
def tasks(*, containing: str | None, show: str | None, task_path: Path | None, json: bool, **given: Any) -> int:
    """List the tasks that ship, or all tasks whose name contains a text; or show tasks.

    Examples: layerimp tasks arc; layerimp tasks --show hellaswag,arc_easy
    """
    from layerimp.cli import listings
    from layerimp.cli.display import Screen
    from layerimp.cli.documents import TaskDetailsList, TaskList
    from layerimp.cli.tables import shown
    from layerimp.registry.catalog import registry

    screen = Screen(json=json)
    if show is None:
        known = registry().tasks(containing or "", task_path)
        if containing and not known:
            for evaluator in registry().evaluators(tasks=(containing,), task_path=task_path):
                evaluator.details()  # the error of an unknown task names similar ones
            raise UnknownNameError(f"no task has {containing!r} in its name")
        screen.present(TaskList(tasks=known), (shown(f"{name}: {summary}") for name, summary in known.items()))
        if containing is None and not json:
            screen.note("these ship; layerimp tasks TEXT searches all of lm-evaluation-harness as well")
    else:
        named = tuple(filter(None, show.split(",")))
        if not named or containing is not None:
            raise OptionError("name tasks after --show, separated by commas")
        every = registry().evaluators(tasks=named, task_path=task_path, **given)
        details = TaskDetailsList(tasks=[task for evaluator in every for task in evaluator.details()])
        screen.present(details, listings.task_details(details))
    return 0


def _description(kind: Kind, name: str) -> Component:
    from layerimp.cli.documents import Component, Option
    from layerimp.registry.catalog import registry

    cls, summary = registry().get(kind, name), registry().summaries(kind)[name]
    preset_options = None if name == cls.name else registry().options(kind, name, {})
    options = [
        Option(
            name=option,
            type=type_name(field.annotation),
            default=getattr(preset_options, option, field.get_default(call_default_factory=True, validated_data={})),
            description=field.description or "",
        )
        for option, field in cls.Config.model_fields.items()
    ]
    return Component(
        name=name,
        plugin=registry().origin(kind, name),
        summary=summary,
        reference=cls.reference,
        variants={variant: dict(preset) for variant, preset in registry().variants(kind, name).items()},
        options=options,
    )


def type_name(annotation: Any) -> str:
    """Return the name of a type for users: `float`, `a | b` for a choice, `list of float` for several values."""
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

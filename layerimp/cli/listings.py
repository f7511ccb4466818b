"""What lists show, part by part: plans, plugins, components, tasks and their files, and the cache."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.filesize import decimal
from rich.padding import Padding
from rich.table import Table

from layerimp.cli.tables import shown
from layerimp.registry.catalog import settings
from layerimp.report import words

if TYPE_CHECKING:
    from rich.text import Text

    from layerimp.cli.documents import CacheList, Component, Plugin, PluginList, TaskDetailsList
    from layerimp.recipe.plans import PlanFile


def plans(file: PlanFile) -> Iterator[Table]:
    """Yield a table of the plans of a file."""
    table = Table("plan", "removes", "of", "scorer", "pruner", "model", box=SIMPLE_HEAD)
    for label, plan in file.plans.items():
        cells = (words.ranges(plan.blocks), f"{plan.num_blocks} blocks", plan.scorer, plan.pruner, plan.model)
        table.add_row(shown(label), *(shown(text or "-") for text in cells))
    yield table


def plugins(installed: PluginList) -> Iterator[Table]:
    """Yield a table of the installed plugins."""
    table = Table("name", "status", "distribution", "what it provides, or what is wrong", box=SIMPLE_HEAD)
    for plugin in installed.plugins:
        style = {"failed": "red", "disabled": "dim"}.get(plugin.status, "")
        provides = plugin.error or "; ".join(_provided(plugin))
        cells = (plugin.name, plugin.status, f"{plugin.distribution} {plugin.version}", provides)
        table.add_row(*(shown(cell) for cell in cells), style=style)
    yield table


def cache(state: CacheList, *, cleared: bool) -> Iterator[Table | str]:
    """Yield tables of the content of the cache and, if it was cleared, of the entries that were removed."""
    removed = {"removed": state.removed} if cleared else {}
    for title, rows in {**removed, f"kept in {state.directory}": state.kept}.items():
        if not rows:
            yield f"{title}: nothing"
            continue
        table = Table("what", "entries", "size", "last written", title=title, title_justify="left", box=SIMPLE_HEAD)
        for row in rows:
            used = " (in use)" if row.in_use else ""
            written = row.changed[:16].replace("T", " ") + " UTC"
            about = (row.about or "unknown") + used
            table.add_row(shown(about), str(row.entries), decimal(row.bytes), written)
        yield table


def components(described: list[Component], *, details: bool) -> Iterator[Text | Padding | str]:
    """Yield lines about components, and with `details` about their options."""
    for component in described:
        yield shown(f"{component.name}: {component.summary}", style="bold")
        source = f"{component.reference}; " if component.reference else ""
        yield _indented(f"{source}plugin {component.plugin}")
        for variant, preset in component.variants.items():
            yield _indented(f"variant {variant}: {settings(preset)}")
        for option in component.options if details else ():
            yield ""
            yield _indented(f"{option.name} ({option.type}, default {option.default})", style="bold")
            yield _indented(option.description)
        if details and not component.options:
            yield _indented("no options")


def task_details(details: TaskDetailsList) -> Iterator[Text | Padding | str]:
    """Yield lines about what tasks measure, and where their rows come from."""
    for task in details.tasks:
        yield shown(f"{task.task}: {task.kind}, {task.shots} examples", style="bold")
        named = ", ".join(filter(None, (task.dataset, task.configuration)))
        splits = {"measured": task.measured, "examples": task.examples, "training": task.training}
        others = f"; functions ({', '.join(task.functions)}) may read others" if task.functions else ""
        yield _indented(f"data set: {named or 'its own files'}")
        yield _indented("splits: " + ", ".join(f"{role} {split}" for role, split in splits.items() if split))
        yield _indented(f"metrics: {', '.join(task.metrics)}")
        yield _indented(f"columns that templates name: {', '.join(task.columns) or 'none'}{others}")
        for split, paths in task.paths.items():
            yield _indented(f"rows of {split}, the first of:")
            yield from (f"    {path}" for path in paths)


def _indented(text: str, style: str = "") -> Padding:
    """Return indented text, whose lines are broken at words."""
    return Padding(shown(text, style=style), (0, 0, 0, 2), expand=False)


def _provided(plugin: Plugin) -> Iterator[str]:
    """Yield what a plugin provides: components by kind, and hooks that provide something else."""
    for kind, names in plugin.components.items():
        yield f"{kind}{'s' if len(names) > 1 else ''} {', '.join(names)}"
    yield from (hook for hook in plugin.hooks if hook.removeprefix("layerimp_")[:-1] not in plugin.components)

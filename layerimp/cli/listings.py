"""Shows lists on stdout: plans, plugins, components, tasks and their files, and the cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.filesize import decimal
from rich.padding import Padding
from rich.table import Table

from layerimp.cli.documents import CacheList, ComponentList, DataFileList, PluginList, TaskDetailsList, TaskList
from layerimp.cli.tables import shown
from layerimp.recipe.plans import PlanFile
from layerimp.registry.catalog import settings
from layerimp.report import words

if TYPE_CHECKING:
    from layerimp.cli.display import Screen
    from layerimp.cli.documents import Component, Kept, Plugin
    from layerimp.evaluator import DataFile, TaskDetails
    from layerimp.pruner import PrunePlan
    from layerimp.registry.catalog import Kind


def show_plans(screen: Screen, plans: Mapping[str, PrunePlan]) -> None:
    """Show the plans of a file."""
    if screen.json:
        screen.print_json(PlanFile(plans=dict(plans)))
        return
    table = Table("plan", "removes", "of", "scorer", "pruner", "model", box=SIMPLE_HEAD)
    for label, plan in plans.items():
        cells = (words.ranges(plan.blocks), f"{plan.num_blocks} blocks", plan.scorer, plan.pruner, plan.model)
        table.add_row(shown(label), *(shown(text or "-") for text in cells))
    screen.out.print(table)


def show_plugins(screen: Screen, plugins: list[Plugin]) -> None:
    """Show the installed plugins."""
    if screen.json:
        screen.print_json(PluginList(plugins=plugins))
        return
    table = Table("name", "status", "distribution", "import", "what it provides, or what is wrong", box=SIMPLE_HEAD)
    for plugin in plugins:
        style = {"failed": "red", "disabled": "dim"}.get(plugin.status, "")
        provides = plugin.error or "; ".join(_provided(plugin))
        source, seconds = f"{plugin.distribution} {plugin.version}", f"{plugin.seconds:.2f} s"
        cells = (plugin.name, plugin.status, source, seconds, provides)
        table.add_row(*(shown(cell) for cell in cells), style=style)
    screen.out.print(table)


def show_cache(screen: Screen, directory: str, kept: list[Kept], removed: list[Kept] | None) -> None:
    """Show the content of the cache, and the entries that were removed; None if nothing had to be removed."""
    if screen.json:
        screen.print_json(CacheList(directory=directory, kept=kept, removed=removed or []))
        return
    for title, rows in (("removed", removed), (f"kept in {directory}", kept)):
        if rows is None:
            continue
        if not rows:
            screen.out.print(shown(f"{title}: nothing"), soft_wrap=True)
            continue
        table = Table("what", "entries", "size", "last written", title=title, title_justify="left", box=SIMPLE_HEAD)
        for row in rows:
            used = " (in use)" if row.in_use else ""
            written = row.changed[:16].replace("T", " ") + " UTC"
            about = (row.about or "unknown") + used
            table.add_row(shown(about), str(row.entries), decimal(row.bytes), written)
        screen.out.print(table)


def show_components(screen: Screen, kind: Kind, components: list[Component], *, details: bool) -> None:
    """Show the components of a kind, or with `details` their options."""
    if screen.json:
        screen.print_json(ComponentList.model_validate({f"{kind}s": components}))
        return
    for component in components:
        screen.out.print(shown(f"{component.name}: {component.summary}", style="bold"))
        source = f"{component.reference}; " if component.reference else ""
        _indented(screen, f"{source}plugin {component.plugin}")
        for variant, preset in component.variants.items():
            _indented(screen, f"variant {variant}: {settings(preset)}")
        for option in component.options if details else ():
            screen.out.print()
            _indented(screen, f"{option.name} ({option.type}, default {option.default})", style="bold")
            _indented(screen, option.description)
        if details and not component.options:
            _indented(screen, "no options")


def show_tasks(screen: Screen, tasks: Mapping[str, str], containing: str | None) -> None:
    """Show tasks with their summaries; for `containing` see `layerimp tasks`."""
    if screen.json:
        screen.print_json(TaskList(tasks=dict(tasks)))
        return
    for name, summary in tasks.items():
        screen.out.print(shown(f"{name}: {summary}"))
    if containing is None:
        screen.note("these ship; layerimp tasks TEXT searches all of lm-evaluation-harness as well")
    elif not tasks:
        screen.note(f"no task has {containing!r} in its name")


def show_task_details(screen: Screen, tasks: Sequence[TaskDetails]) -> None:
    """Show what tasks measure, and where their rows come from."""
    if screen.json:
        screen.print_json(TaskDetailsList(tasks=list(tasks)))
        return
    for task in tasks:
        screen.out.print(shown(f"{task.task}: {task.kind}, {task.shots} examples", style="bold"))
        named = ", ".join(filter(None, (task.dataset, task.configuration)))
        splits = {"measured": task.measured, "examples": task.examples, "training": task.training}
        others = f"; functions ({', '.join(task.functions)}) may read others" if task.functions else ""
        _indented(screen, f"data set: {named or 'its own files'}")
        _indented(screen, "splits: " + ", ".join(f"{role} {split}" for role, split in splits.items() if split))
        _indented(screen, f"metrics: {', '.join(task.metrics)}")
        _indented(screen, f"columns that templates name: {', '.join(task.columns) or 'none'}{others}")
        for split, paths in task.paths.items():
            _indented(screen, f"rows of {split}, the first of:")
            for path in paths:
                screen.out.print(shown(f"    {path}"), soft_wrap=True)


def show_files(screen: Screen, directory: Path, files: Sequence[DataFile]) -> None:
    """Show the files of rows in a data directory."""
    if screen.json:
        screen.print_json(DataFileList(files=list(files)))
        return
    for file in files:
        licence = file.licence or "no licence stated"
        screen.out.print(shown(f"{directory / file.path}: {file.rows:,} rows, {licence}"), soft_wrap=True)
    if not files:
        screen.note("these tasks name their own files, so that there is nothing to fetch")


def _indented(screen: Screen, text: str, style: str = "") -> None:
    """Print indented text, with lines broken at words."""
    screen.out.print(Padding(shown(text, style=style), (0, 0, 0, 2), expand=False))


def _provided(plugin: Plugin) -> Iterator[str]:
    """Yield what a plugin provides: components by kind, and hooks that provide something else."""
    for kind, names in plugin.components.items():
        yield f"{kind}{'s' if len(names) > 1 else ''} {', '.join(names)}"
    yield from (hook for hook in plugin.hooks if hook.removeprefix("layerimp_")[:-1] not in plugin.components)

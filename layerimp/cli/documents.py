"""The JSON documents of commands that list something."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from layerimp.component import Plain, versioned
from layerimp.evaluator import TaskDetails


class Plugin(Plain):
    """An installed plugin."""

    name: str
    """The name of its entry point."""
    status: Literal["ok", "failed", "disabled"]
    """Whether it takes part."""
    distribution: str
    """What it was installed with."""
    version: str
    """The version of that."""
    hooks: list[str]
    """The hooks that it has."""
    components: dict[str, list[str]]
    """The names of its components, by kind: `scorer`, `pruner`, and so on."""
    error: str | None
    """Why it failed; null if it did not."""


class PluginList(Plain):
    """What `layerimp plugins` prints with `--json`."""

    schema_version: Literal["layerimp.plugins/1"] = versioned("layerimp.plugins/1")
    plugins: list[Plugin]
    """In the order of loading."""


class Option(Plain):
    """An option of a component."""

    name: str
    """Its name."""
    type: str
    """What it takes, in words."""
    default: Any
    """What it is if nothing is given."""
    description: str
    """What it does."""


class Component(Plain):
    """A scorer, pruner, healer or evaluator."""

    name: str
    """The registered name."""
    plugin: str
    """The plugin that it comes from."""
    summary: str
    """What it is, in a line."""
    reference: str
    """Where the method comes from; empty if nothing says so."""
    variants: dict[str, dict[str, Any]]
    """Further names of it, each with the options that it presets."""
    options: list[Option]
    """Its options."""


def _components(kind: str) -> Any:
    """A list that is left out of the document of another kind."""
    what = f"The {kind}, or the one that was named; left out by the other commands."
    return Field(default=None, exclude_if=lambda value: value is None, description=what)


class ComponentList(Plain):
    """What `layerimp scorers`, `pruners`, `healers` and `evaluators` print with `--json`: each its own kind."""

    schema_version: Literal["layerimp.components/1"] = versioned("layerimp.components/1")
    scorers: list[Component] | None = _components("scorers")
    pruners: list[Component] | None = _components("pruners")
    healers: list[Component] | None = _components("healers")
    evaluators: list[Component] | None = _components("evaluators")


class TaskList(Plain):
    """What `layerimp tasks` prints with `--json`."""

    schema_version: Literal["layerimp.tasks/1"] = versioned("layerimp.tasks/1")
    tasks: dict[str, str]
    """By name, what each is, in a line."""


class TaskDetailsList(Plain):
    """What `layerimp tasks --show` prints with `--json`."""

    schema_version: Literal["layerimp.task-details/1"] = versioned("layerimp.task-details/1")
    tasks: list[TaskDetails]
    """Each task, those of groups one by one."""


class Kept(Plain):
    """Something that is kept between runs."""

    kind: Literal["metrics", "unfinished"]
    """What `--clear` calls it: a kind of what is kept."""
    about: str
    """What it is; empty if nothing says so."""
    entries: int
    """How many files or folders it is."""
    bytes: int
    """Their size."""
    changed: str
    """When the last of them was written: date and time of day in UTC."""
    in_use: bool
    """Whether a running command uses it, so that it cannot be removed."""


class CacheList(Plain):
    """What `layerimp cache` prints with `--json`."""

    schema_version: Literal["layerimp.cache/1"] = versioned("layerimp.cache/1")
    directory: str
    """Where it is kept."""
    kept: list[Kept]
    """What is there now."""
    removed: list[Kept]
    """What `--clear` removed."""

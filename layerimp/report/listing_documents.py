"""The JSON documents of what is there: plugins and their components, tasks, what is kept between runs, and schemas.

See `report.documents` for what the types are for.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict  # typing's own lacks what pydantic needs before Python 3.12

from layerimp.report.json_types import closed


@closed
class Plugin(TypedDict):
    """An installed plugin."""

    name: Annotated[str, Field(description="The name of its entry point.")]
    status: Annotated[Literal["ok", "failed", "disabled"], Field(description="Whether it takes part.")]
    distribution: Annotated[str, Field(description="What it was installed with.")]
    version: Annotated[str, Field(description="The version of that.")]
    hooks: Annotated[list[str], Field(description="The hooks that it has.")]
    components: Annotated[
        dict[str, list[str]], Field(description="The names of its components, by kind: `scorer`, `pruner`, and so on.")
    ]
    error: Annotated[str | None, Field(description="Why it failed; null where it did not.")]
    seconds: Annotated[float, Field(description="How long its import took.")]


@closed
class PluginList(TypedDict):
    """What `layerimp plugins` prints with `--json`."""

    schema_version: Annotated[Literal["layerimp.plugins/1"], Field(description="The version of this format.")]
    plugins: Annotated[list[Plugin], Field(description="In the order of loading.")]


@closed
class Option(TypedDict):
    """An option of a component."""

    name: Annotated[str, Field(description="Its name.")]
    type: Annotated[str, Field(description="What it takes, in words.")]
    default: Annotated[Any, Field(description="What it is where nothing is said.")]
    description: Annotated[str, Field(description="What it does.")]


@closed
class Component(TypedDict):
    """A scorer, pruner, healer or evaluator."""

    name: Annotated[str, Field(description="The registered name.")]
    plugin: Annotated[str, Field(description="The plugin that it comes from.")]
    summary: Annotated[str, Field(description="What it is, in a line.")]
    reference: Annotated[str, Field(description="Where the method comes from; empty where nothing says so.")]
    variants: Annotated[
        dict[str, dict[str, Any]], Field(description="Further names of it, each with the options that it presets.")
    ]
    options: Annotated[list[Option], Field(description="Its options.")]


@closed
class ComponentList(TypedDict):
    """What `layerimp scorers`, `pruners`, `healers` and `evaluators` print with `--json`: each its own kind."""

    schema_version: Annotated[Literal["layerimp.components/1"], Field(description="The version of this format.")]
    scorers: NotRequired[Annotated[list[Component], Field(description="The scorers, or the one that was named.")]]
    pruners: NotRequired[Annotated[list[Component], Field(description="The pruners, or the one that was named.")]]
    healers: NotRequired[Annotated[list[Component], Field(description="The healers, or the one that was named.")]]
    evaluators: NotRequired[Annotated[list[Component], Field(description="The evaluators, or the one that was named.")]]


@closed
class TaskList(TypedDict):
    """What `layerimp tasks` prints with `--json`."""

    schema_version: Annotated[Literal["layerimp.tasks/1"], Field(description="The version of this format.")]
    tasks: Annotated[dict[str, str], Field(description="By name, what each is, in a line.")]


@closed
class Kept(TypedDict):
    """Something that is kept between runs."""

    kind: Annotated[
        Literal["metrics", "unfinished", "names"], Field(description="What `--clear` calls it: a kind of what is kept.")
    ]
    about: Annotated[str, Field(description="What it is; empty where nothing says so.")]
    entries: Annotated[int, Field(description="How many files or folders it is.")]
    bytes: Annotated[int, Field(description="Their size.")]
    changed: Annotated[str, Field(description="When the last of them was written: date and time of day in UTC.")]
    in_use: Annotated[bool, Field(description="Whether a running command uses it, so that it cannot be removed.")]


@closed
class CacheList(TypedDict):
    """What `layerimp cache` prints with `--json`."""

    schema_version: Annotated[Literal["layerimp.cache/1"], Field(description="The version of this format.")]
    directory: Annotated[str, Field(description="Where it is kept.")]
    kept: Annotated[list[Kept], Field(description="What is there now.")]
    removed: Annotated[list[Kept], Field(description="What `--clear` removed.")]


@closed
class SchemaList(TypedDict):
    """What `layerimp schema` prints with `--json`."""

    schema_version: Annotated[Literal["layerimp.schemas/1"], Field(description="The version of this format.")]
    schemas: Annotated[dict[str, str], Field(description="By name, what each describes, in a line.")]

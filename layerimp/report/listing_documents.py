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
class TaskDetail(TypedDict):
    """What a task measures, and where its rows come from."""

    task: Annotated[str, Field(description="Its name.")]
    dataset: Annotated[str, Field(description="Its data set on the network; empty where only its code knows it.")]
    configuration: Annotated[str, Field(description="The configuration of the data set; empty where there is none.")]
    measured: Annotated[str, Field(description="The split that is measured.")]
    examples: Annotated[str, Field(description="The split of the examples; empty where they come from elsewhere.")]
    training: Annotated[str, Field(description="The split of text to train on; empty where there is none.")]
    shots: Annotated[int, Field(description="The number of examples before each question.")]
    kind: Annotated[str, Field(description="What is asked of the model.")]
    metrics: Annotated[list[str], Field(description="The names of its metrics.")]
    columns: Annotated[list[str], Field(description="The columns that its templates name.")]
    functions: Annotated[
        list[str], Field(description="Its parts that are functions, which may read other columns, or make some.")
    ]
    paths: Annotated[
        dict[str, list[str]],
        Field(description="Where the rows are looked for, by split, in this order; empty where it names its files."),
    ]


@closed
class TaskDetails(TypedDict):
    """What `layerimp tasks --show` prints with `--json`."""

    schema_version: Annotated[Literal["layerimp.task-details/1"], Field(description="The version of this format.")]
    tasks: Annotated[list[TaskDetail], Field(description="Each task, those of groups one by one.")]


@closed
class RowFile(TypedDict):
    """A local file of rows."""

    task: Annotated[str, Field(description="The task that the rows belong to.")]
    split: Annotated[str, Field(description="The split of its data set.")]
    path: Annotated[str, Field(description="Its path below the data directory.")]
    rows: Annotated[int, Field(description="How many rows it has.")]
    sha256: Annotated[str, Field(description="The SHA-256 of the file, in hex.")]
    licence: Annotated[str, Field(description="The licence that a README beside it states; empty where none does.")]


@closed
class RowFiles(TypedDict):
    """What `layerimp tasks --fetch` prints with `--json`."""

    schema_version: Annotated[Literal["layerimp.rows/1"], Field(description="The version of this format.")]
    files: Annotated[list[RowFile], Field(description="The files of the tasks, fetched now or before.")]


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

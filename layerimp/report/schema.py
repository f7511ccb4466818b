"""The JSON documents of a run, as types: what `--json` prints, and the files of an output directory.

The JSON Schemas, and the tables of the documentation, come from here. Numbers that are infinite are null.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, NotRequired, get_args, get_type_hints

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict, is_typeddict  # typing's own lacks what pydantic needs before Python 3.12

closed = with_config(ConfigDict(extra="forbid"))

Number = float | None
Model = Annotated[str, Field(description="The model, as it was named.")]
NumBlocks = Annotated[int, Field(description="Blocks of the intact model.")]
PerBlock = Annotated[list[float], Field(description="One per block, by depth; higher means: keep.")]
Columns = Annotated[dict[str, list[float]], Field(description="Further numbers per block, by name.")]
Notes = Annotated[list[str], Field(description="What a reader of the scores has to know.")]
Spans = Annotated[dict[str, list[float]], Field(description="Scores of windows of so many blocks, by their first one.")]


@closed
class Calibration(TypedDict):
    """The text that drove the scoring."""

    source: Annotated[str, Field(description="The file, the data set or the task that it was drawn from.")]
    rows: Annotated[int, Field(description="Rows that were drawn.")]
    tokens: Annotated[int, Field(description="Tokens in all rows, without padding.")]
    labels: NotRequired[
        Annotated[dict[str, int], Field(description="For a classifier: how many rows have each label.")]
    ]
    fingerprint: Annotated[str, Field(description="A hash of the tokens and the labels: equal text has equal scores.")]


@closed
class Sizes(TypedDict):
    """An amount before and after."""

    original: Annotated[int, Field(description="Of the intact model.")]
    pruned: Annotated[dict[str, int], Field(description="Of the pruned model, by label.")]


@closed
class Scores(TypedDict):
    """What a scorer said."""

    scores: PerBlock
    columns: Columns
    notes: Notes
    spans: NotRequired[Spans]


@closed
class Scorer(TypedDict, total=False):
    """What a scorer said, and what was removed by it. A plan that was applied, and not made, has no scores."""

    scores: PerBlock
    columns: Columns
    notes: Notes
    spans: Spans
    removed: Annotated[list[int], Field(description="The blocks that went, in order of removal.")]
    checkpoint: Annotated[
        str | None, Field(description="Where the pruned model is, below `output`; null if it was not kept.")
    ]


@closed
class Measured(TypedDict):
    """One metric of one model."""

    value: Annotated[Number, Field(description="The number.")]
    stderr: Annotated[Number, Field(description="Its standard error over the documents; null where there is none.")]
    higher_is_better: Annotated[bool, Field(description="The direction.")]


@closed
class Average(TypedDict):
    """An average retention."""

    value: Annotated[float, Field(description="The share that is left, averaged over metrics and then over tasks.")]
    stderr: Annotated[Number, Field(description="Its standard error; null where it is not known.")]


@closed
class Comparison(TypedDict):
    """The pruned models side by side."""

    order: Annotated[list[str], Field(description="The labels, from the most retained to the least.")]
    average_retention: Annotated[dict[str, Average | None], Field(description="By label; null where there is none.")]
    best: Annotated[
        dict[str, dict[str, list[str]]],
        Field(description="By task and metric, the labels that are best or cannot be told from the best."),
    ]
    best_average: Annotated[list[str], Field(description="The same for the average retention.")]


Quality = Annotated[
    dict[str, dict[str, dict[str, Measured]]],
    Field(description="By label (the intact model's under `original`), task and metric."),
]
Retention = Annotated[
    dict[str, dict[str, dict[str, Number]]],
    Field(
        description="By label, task and metric: pruned / original where higher is better, original / pruned otherwise; "
        "null where a ratio says nothing."
    ),
]
Footprint = Annotated[
    dict[str, dict[str, Number]],
    Field(description="By label: what costs time and space, by name, and beside it `NAME_stderr`."),
]
Calibrated = Annotated[Calibration, Field(description="The text that drove the scoring.")]
Parameters = Annotated[Sizes, Field(description="Parameters; tied weights count once.")]
Bytes = Annotated[Sizes, Field(description="Bytes of the parameters.")]
Compared = Annotated[Comparison, Field(description="The pruned models side by side.")]


@closed
class Report(TypedDict):
    """What `run`, `score`, `prune` and `evaluate` print with `--json`. Parts that a command does not produce are
    missing."""

    schema_version: Annotated[Literal["layerimp.report/1"], Field(description="The version of this format.")]
    model: Model
    num_blocks: NumBlocks
    calibration: NotRequired[Calibrated]
    parameters: NotRequired[Parameters]
    bytes: NotRequired[Bytes]
    scorers: NotRequired[Annotated[dict[str, Scorer], Field(description="By label.")]]
    baselines: NotRequired[Annotated[dict[str, Scorer], Field(description="The same of the baselines, by label.")]]
    left_out: NotRequired[
        Annotated[dict[str, str], Field(description="By label, why a scorer that nobody named takes no part.")]
    ]
    failed: NotRequired[
        Annotated[dict[str, str], Field(description="By label, why what was asked for did not go on while others did.")]
    ]
    metrics: NotRequired[Quality]
    retention: NotRequired[Retention]
    comparison: NotRequired[Compared]
    footprint: NotRequired[Footprint]
    output: Annotated[str | None, Field(description="The output directory; null without one.")]


@closed
class ScoresFile(TypedDict):
    """What `scores.json` holds."""

    schema_version: Annotated[Literal["layerimp.scores/1"], Field(description="The version of this format.")]
    model: Model
    num_blocks: NumBlocks
    calibration: NotRequired[Calibrated]
    scorers: Annotated[dict[str, Scores], Field(description="By label.")]
    baselines: NotRequired[Annotated[dict[str, Scores], Field(description="The same of the baselines, by label.")]]


@closed
class Plan(TypedDict):
    """Which blocks go."""

    schema_version: Annotated[Literal["layerimp.plan/1"], Field(description="The version of this format.")]
    num_blocks: Annotated[int, Field(description="Blocks of the model that it is for.")]
    blocks: Annotated[list[int], Field(description="The blocks to remove, in order of removal.")]
    reason: Annotated[str, Field(description="Why these, in words.")]
    scorer: Annotated[str | None, Field(description="The scorer that it comes from, if any.")]
    pruner: Annotated[str | None, Field(description="The pruner that made it, if any.")]


@closed
class PlanFile(TypedDict):
    """What `plan.json` holds. `layerimp prune --plan` applies `plans`, and not those of the baselines."""

    schema_version: Annotated[Literal["layerimp.plans/1"], Field(description="The version of this format.")]
    plans: Annotated[dict[str, Plan], Field(description="By label.")]
    baselines: NotRequired[Annotated[dict[str, Plan], Field(description="Those of the baselines, by label.")]]


@closed
class MetricsFile(TypedDict):
    """What `metrics.json` holds."""

    schema_version: Annotated[Literal["layerimp.metrics/1"], Field(description="The version of this format.")]
    parameters: NotRequired[Parameters]
    bytes: NotRequired[Bytes]
    metrics: NotRequired[Quality]
    retention: NotRequired[Retention]
    comparison: NotRequired[Compared]
    footprint: NotRequired[Footprint]


DOCUMENTS: dict[str, Any] = {
    "layerimp.report/1": Report,
    "layerimp.scores/1": ScoresFile,
    "layerimp.plans/1": PlanFile,
    "layerimp.metrics/1": MetricsFile,
}
"""Every document, by its `schema_version`."""


def parts(document: Any) -> list[Any]:
    """A document's type and those that it is made of, each once, from the whole to the details."""
    found = [document]
    for part in found:  # grows on the way
        for hint in get_type_hints(part, include_extras=True).values():
            found += [inner for inner in _mappings(hint) if inner not in found]
    return found


def _mappings(hint: Any) -> Iterator[Any]:
    """The typed mappings in a type."""
    if is_typeddict(hint):
        yield hint
    for inner in get_args(hint):
        yield from _mappings(inner)

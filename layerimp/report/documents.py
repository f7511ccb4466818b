"""The JSON documents of a run: what `--json` prints, and the files of an output directory.

The types are what the code returns (`report.conversion`), and what the JSON Schemas and the tables of the reference are
made from.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict  # typing's own lacks what pydantic needs before Python 3.12

from layerimp.calibration.sampling import Calibration
from layerimp.report.json_types import Number, closed
from layerimp.report.search_documents import SearchResults
from layerimp.steps import Step


@closed
class Sizes(TypedDict):
    """An amount before and after."""

    original: Annotated[int, Field(description="Of the intact model.")]
    pruned: Annotated[dict[str, int], Field(description="Of the pruned model, by label.")]


@closed
class Scores(TypedDict):
    """What a scorer said."""

    scores: Annotated[
        list[float],
        Field(description="One per block, or whatever `blocks` names, by depth; higher means: keep."),
    ]
    blocks: NotRequired[
        Annotated[
            list[Step],
            Field(
                description="What each score is of, where that is not all blocks in order: blocks as numbers, and as "
                "text seams such as `17/18`, or attention and MLP such as `7.mlp`."
            ),
        ]
    ]
    columns: Annotated[dict[str, list[float]], Field(description="Further numbers, by name, one for each score.")]
    notes: Annotated[list[str], Field(description="What a reader of the scores has to know.")]
    spans: NotRequired[
        Annotated[
            dict[str, list[float]],
            Field(
                description="Scores of windows of so many blocks, by their first one; with seams, windows that begin "
                "with a block and those that begin with a seam take turns."
            ),
        ]
    ]


@closed
class RepairedGap(TypedDict):
    """What a healer did at one gap."""

    gap: Annotated[str, Field(description="The gap, by what was removed there, such as `blocks 6-9`.")]
    removed: Annotated[list[Step], Field(description="What was there: blocks as numbers, other steps as text.")]
    done: Annotated[str, Field(description="What was done, in a word; `nothing` where it was left.")]
    why: Annotated[str, Field(description="Why, where that is not what was asked for; else empty.")]
    numbers: Annotated[dict[str, float], Field(description="What describes it, such as a factor or a ridge.")]


class Repaired(TypedDict):
    """What a healer did, and what that brought."""

    gaps: Annotated[list[RepairedGap], Field(description="By gap, in depth order.")]
    loss: Annotated[
        dict[str, float],
        Field(
            description="The mean loss per prediction, in nats, on rows of the text that neither the fit nor any "
            "choice has seen: `intact`, `pruned` and `healed`."
        ),
    ]
    accuracy: Annotated[
        dict[str, float] | None,
        Field(description="The share of these rows that a classifier labels right; null for a language model."),
    ]
    recovered: Annotated[
        Number,
        Field(
            description="The share of the lost quality that healing brought back (loss, or a classifier's accuracy); "
            "null if nothing was lost."
        ),
    ]


@closed
class Healed(Repaired):
    """A healed model of a run."""

    checkpoint: Annotated[str | None, Field(description="Where it is, below `output`; null if it was not kept.")]


@closed
class Removal(TypedDict, total=False):
    """What a plan removed. A plan that was given to the command has no scores beside it."""

    removed: Annotated[
        list[Step],
        Field(description="What was removed, in order: blocks as numbers, other steps as text, such as `17/18`."),
    ]
    checkpoint: Annotated[
        str | None, Field(description="Where the pruned model is, below `output`; null if it was not kept.")
    ]
    healed: Annotated[dict[str, Healed], Field(description="The healed models, by the healers' labels.")]


@closed
class Scorer(Scores, Removal):
    """What a scorer said, and what was removed by it."""


@closed
class Measured(TypedDict):
    """One metric of one model."""

    value: Annotated[Number, Field(description="The number.")]
    stderr: Annotated[
        Number,
        Field(
            description="Its standard error over the documents, of a perplexity to first order; null where there is "
            "none."
        ),
    ]
    low: Annotated[
        Number,
        Field(
            description="The lower end of its 95 % confidence interval over the documents, of a perplexity made in the "
            "log-likelihood; null where it is not known."
        ),
    ]
    high: Annotated[Number, Field(description="The upper end; null where it is not known or infinite.")]
    documents: Annotated[
        int | None, Field(description="How many documents it was measured on; null where the evaluator does not say.")
    ]
    higher_is_better: Annotated[bool, Field(description="The direction.")]


@closed
class Comparison(TypedDict):
    """The pruned models side by side."""

    order: Annotated[
        list[str],
        Field(
            description="The labels, from the most retained to the least; after a search, from the largest number of "
            "removable blocks to the smallest."
        ),
    ]
    best: Annotated[
        dict[str, dict[str, list[str]]],
        Field(
            description="By task and metric, the labels that are best or do not differ significantly from the best; "
            "empty after a search, whose models have different numbers of blocks."
        ),
    ]
    best_retained: Annotated[list[str], Field(description="The same by `retained_worst`.")]


class Header(TypedDict):
    """The model, and the text that drove the scoring."""

    model: Annotated[str, Field(description="The model, as it was named.")]
    num_blocks: Annotated[int, Field(description="Blocks of the intact model.")]
    calibration: NotRequired[Annotated[Calibration, Field(description="The text that drove the scoring.")]]


class SizeChanges(TypedDict, total=False):
    """How much smaller the models are."""

    parameters: Annotated[Sizes, Field(description="Parameters; tied weights count once.")]
    bytes: Annotated[Sizes, Field(description="Bytes of the parameters.")]


@closed
class ReachedTarget(TypedDict):
    """How a pruned model stands to a target."""

    value: Annotated[Number, Field(description="The model's value, in the target's unit.")]
    stderr: Annotated[Number, Field(description="Its standard error where it is measured; null where it is counted.")]
    one_less: Annotated[
        Number,
        Field(
            description="The value with one step less, of the intact model where one step goes; null where there is no "
            "such plan, or where a latency was not measured."
        ),
    ]
    one_more: Annotated[Number, Field(description="The same with one step more.")]


@closed
class Target(TypedDict):
    """A size that was asked for."""

    asked: Annotated[str, Field(description="The value as it was written.")]
    unit: Annotated[str, Field(description="The unit of all numbers: parameters, bytes, bytes per token, or ms.")]
    limit: Annotated[float, Field(description="The largest value that is allowed.")]
    original: Annotated[float, Field(description="The intact model's value.")]
    reached: Annotated[dict[str, ReachedTarget], Field(description="By label.")]


class Targets(TypedDict, total=False):
    """The sizes that were asked for."""

    targets: Annotated[
        dict[str, Target],
        Field(description="By what was asked for (parameters, bytes, kv-cache, latency), where something was."),
    ]


class ScorerResults(TypedDict, total=False):
    """What each scorer found, and why some did not take part."""

    scorers: Annotated[dict[str, Scorer | Removal], Field(description="By label.")]
    baselines: Annotated[dict[str, Scorer | Removal], Field(description="The same of the baselines, by label.")]
    left_out: Annotated[dict[str, str], Field(description="By label, why a scorer that was not named was left out.")]
    failed: Annotated[
        dict[str, str], Field(description="By label, why a requested component failed while others went on.")
    ]


class Retained(TypedDict, total=False):
    """What the pruned models retain; means over the repeats, where there are several."""

    retained: Annotated[
        dict[str, dict[str, Number]],
        Field(
            description="By label and task, the share of what the intact model knows: 1 is intact, 0 knows nothing; "
            "null where the intact model does not know enough of the task, or the pruned one broke."
        ),
    ]
    retained_likelihood: Annotated[
        dict[str, Number],
        Field(description="By label, the mean over the tasks that measure a likelihood; null where there is none."),
    ]
    retained_accuracy: Annotated[
        dict[str, Number], Field(description="By label, the mean over the other tasks; null where there is none.")
    ]
    retained_worst: Annotated[
        dict[str, Number], Field(description="By label, the lower of the two; null where there is neither.")
    ]


class Measurements(Retained, total=False):
    """What the evaluators measured."""

    metrics: Annotated[
        dict[str, dict[str, dict[str, Measured]]],
        Field(description="By label (the intact model's under `original`), task and metric."),
    ]
    retention: Annotated[
        dict[str, dict[str, dict[str, Number]]],
        Field(
            description="By label, task and metric: pruned / original where higher is better, original / pruned "
            "otherwise; null if a ratio makes no sense."
        ),
    ]
    comparison: Annotated[Comparison, Field(description="The pruned models side by side.")]
    notes: Annotated[list[str], Field(description="What a reader of the metrics has to know.")]
    footprint: Annotated[
        dict[str, dict[str, Number]],
        Field(description="By label: what costs time and space, by name, and beside it `NAME_stderr`."),
    ]


@closed
class Report(Header, SizeChanges, Targets, ScorerResults, Measurements, SearchResults):
    """What `run`, `score`, `prune` and `evaluate` print with `--json`. Parts that a command does not produce are
    missing."""

    schema_version: Annotated[Literal["layerimp.report/2"], Field(description="The version of this format.")]
    output: Annotated[str | None, Field(description="The output directory; null without one.")]


@closed
class ScoresFile(Header):
    """What `scores.json` holds."""

    schema_version: Annotated[Literal["layerimp.scores/1"], Field(description="The version of this format.")]
    scorers: Annotated[dict[str, Scores], Field(description="By label.")]
    baselines: NotRequired[Annotated[dict[str, Scores], Field(description="The same of the baselines, by label.")]]


@closed
class Plan(TypedDict):
    """What goes."""

    schema_version: Annotated[Literal["layerimp.plan/2"], Field(description="The version of this format.")]
    num_blocks: Annotated[int, Field(description="Blocks of the model that it is for.")]
    blocks: Annotated[
        list[Step],
        Field(description="What to remove, in order: blocks as numbers, other steps as text, such as `17/18`."),
    ]
    reason: Annotated[str, Field(description="Why these steps were chosen, in words.")]
    scorer: Annotated[str | None, Field(description="The scorer that it comes from, if any.")]
    pruner: Annotated[str | None, Field(description="The pruner that made it, if any.")]
    model: Annotated[
        str | None, Field(description="The model that it was made for: a path as seen from anywhere, or a name.")
    ]
    nested: Annotated[
        bool | None,
        Field(description="Whether its first few steps are the plan for fewer; null if not known."),
    ]


@closed
class PlanFile(TypedDict):
    """What `plan.json` holds. `layerimp prune --plan` applies `plans`, and not those of the baselines."""

    schema_version: Annotated[Literal["layerimp.plans/2"], Field(description="The version of this format.")]
    plans: Annotated[dict[str, Plan], Field(description="By label.")]
    baselines: NotRequired[Annotated[dict[str, Plan], Field(description="Those of the baselines, by label.")]]


@closed
class HealingReport(Repaired):
    """What `layerimp heal` prints with `--json`."""

    schema_version: Annotated[Literal["layerimp.healing/1"], Field(description="The version of this format.")]
    model: Annotated[str, Field(description="The pruned model, as it was named.")]
    teacher: Annotated[str, Field(description="The intact model.")]
    removed: Annotated[
        list[Step],
        Field(description="What was removed from the intact model: blocks as numbers, other steps as text (`17/18`)."),
    ]
    healer: Annotated[str, Field(description="The healer.")]
    options: Annotated[dict[str, Any], Field(description="Its options.")]
    calibration: Annotated[Calibration, Field(description="The text that drove it.")]
    changed: Annotated[list[str], Field(description="The parameters that were replaced.")]
    output: Annotated[str, Field(description="The healed checkpoint.")]


@closed
class MetricsFile(SizeChanges, Targets, Measurements, SearchResults):
    """What `metrics.json` holds."""

    schema_version: Annotated[Literal["layerimp.metrics/2"], Field(description="The version of this format.")]


@closed
class Error(TypedDict):
    """What went wrong."""

    kind: Annotated[
        str, Field(description="The name of the error, such as `OptionError`, `UsageError`, `Interrupted`.")
    ]
    message: Annotated[str, Field(description="What is wrong, where, and what would be right, in one line.")]
    exit_code: Annotated[int, Field(description="The exit code of the command.")]


@closed
class ErrorReport(TypedDict):
    """What a command with `--json` prints where it fails as a whole."""

    schema_version: Annotated[Literal["layerimp.error/1"], Field(description="The version of this format.")]
    error: Annotated[Error, Field(description="What went wrong.")]

"""The JSON documents of a run: what `--json` prints, and the files of an output directory.

The types are used by the code that makes the documents (`report.conversion`). The JSON Schemas and the tables of the
reference are generated from them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict  # before Python 3.12, typing.TypedDict lacks what pydantic needs

from layerimp.calibration.sampling import Calibration
from layerimp.report.json_types import Number, closed
from layerimp.report.search_documents import SearchResults
from layerimp.steps import Step


@closed
class Sizes(TypedDict):
    """An amount before and after pruning."""

    original: Annotated[int, Field(description="The amount of the intact model.")]
    pruned: Annotated[dict[str, int], Field(description="The amount of the pruned model, by label.")]


@closed
class Scores(TypedDict):
    """The result of a scorer."""

    scores: Annotated[
        list[float],
        Field(description="One score per block, or per step in `blocks`, by depth; a higher score means: keep."),
    ]
    blocks: NotRequired[
        Annotated[
            list[Step],
            Field(
                description="The step that each score belongs to, if these are not all blocks in order: blocks as "
                "numbers; seams such as `17/18`, or single sublayers such as `7.mlp`, as text."
            ),
        ]
    ]
    columns: Annotated[dict[str, list[float]], Field(description="Further numbers, by name, one for each score.")]
    notes: Annotated[list[str], Field(description="Notes for a reader of the scores.")]
    spans: NotRequired[
        Annotated[
            dict[str, list[float]],
            Field(
                description="By window length, the scores of windows of neighbouring blocks, ordered by first block; "
                "with seams, windows that begin with a block alternate with windows that begin with a seam."
            ),
        ]
    ]


@closed
class RepairedGap(TypedDict):
    """What a healer did at one gap."""

    gap: Annotated[str, Field(description="The gap, named by what was removed there, such as `blocks 6-9`.")]
    removed: Annotated[list[Step], Field(description="The removed steps: blocks as numbers, other steps as text.")]
    done: Annotated[str, Field(description="What was done, in a word; `nothing` if the gap was left as it was.")]
    why: Annotated[str, Field(description="Why something other than requested was done; else empty.")]
    numbers: Annotated[dict[str, float], Field(description="Numbers that describe it, such as a factor or a ridge.")]


@closed
class Repaired(TypedDict):
    """What a healer did, and the effect of healing."""

    gaps: Annotated[list[RepairedGap], Field(description="What was done at each gap, in depth order.")]
    loss: Annotated[
        dict[str, float],
        Field(
            description="The mean loss per prediction, in nats, of the `intact`, `pruned` and `healed` model, on rows "
            "of the text that were used neither for the fit nor for any choice. `pruned` is the intact model without "
            "the removed steps; `healed_before` is there only if the model had been healed before."
        ),
    ]
    accuracy: Annotated[
        dict[str, float] | None,
        Field(description="The share of these rows that a classifier labels correctly; null for a language model."),
    ]
    recovered: Annotated[
        Number,
        Field(
            description="The share of the lost quality that came back (loss, or a classifier's accuracy), from the "
            "`pruned` to the `healed` model; null if nothing was lost."
        ),
    ]


@closed
class Healed(Repaired):
    """A healed model of a run."""

    checkpoint: Annotated[str | None, Field(description="The path of the model below `output`; null if not kept.")]


@closed
class Removal(TypedDict, total=False):
    """What a plan removed. A plan that was given to the command has no scores."""

    removed: Annotated[
        list[Step],
        Field(description="The removed steps, in order: blocks as numbers, other steps as text, such as `17/18`."),
    ]
    checkpoint: Annotated[
        str | None, Field(description="The path of the pruned model below `output`; null if it was not kept.")
    ]
    healed: Annotated[dict[str, Healed], Field(description="The healed models, by the healers' labels.")]


@closed
class Scorer(Scores, Removal):
    """The result of a scorer, and what was removed by its scores."""


@closed
class Measured(TypedDict):
    """One metric of one model."""

    value: Annotated[Number, Field(description="The number.")]
    stderr: Annotated[
        Number,
        Field(
            description="The standard error over the documents, to first order for a perplexity; null if there is none."
        ),
    ]
    low: Annotated[
        Number,
        Field(
            description="The lower end of the 95 % confidence interval over the documents, which is computed for the "
            "log-likelihood in the case of a perplexity; null if not known."
        ),
    ]
    high: Annotated[Number, Field(description="The upper end; null if not known or infinite.")]
    documents: Annotated[
        int | None, Field(description="How many documents it was measured on; null if the evaluator does not say.")
    ]
    higher_is_better: Annotated[bool, Field(description="The direction.")]


@closed
class Comparison(TypedDict):
    """A comparison of the pruned models."""

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
    best_retained: Annotated[list[str], Field(description="The same, judged by `retained_worst`.")]


class Header(TypedDict):
    """The model, and the text that drove the scoring."""

    model: Annotated[str, Field(description="The model, as it was named.")]
    num_blocks: Annotated[int, Field(description="The number of blocks of the intact model.")]
    calibration: NotRequired[Annotated[Calibration, Field(description="The text that drove the scoring.")]]


class SizeChanges(TypedDict, total=False):
    """The sizes of the models before and after pruning."""

    parameters: Annotated[Sizes, Field(description="Parameters; tied weights count once.")]
    bytes: Annotated[Sizes, Field(description="Bytes of the parameters.")]


@closed
class ReachedTarget(TypedDict):
    """A pruned model's value beside a target."""

    value: Annotated[Number, Field(description="The model's value, in the target's unit.")]
    stderr: Annotated[Number, Field(description="The standard error of a measured value; null for a counted one.")]
    one_less: Annotated[
        Number,
        Field(
            description="The value with one step less, which for a single step is the intact model's; null if there is "
            "no such plan, or if its latency was not measured."
        ),
    ]
    one_more: Annotated[Number, Field(description="The value with one step more; null in the same cases.")]


@closed
class Target(TypedDict):
    """A size that was asked for."""

    asked: Annotated[str, Field(description="The value as it was written.")]
    unit: Annotated[str, Field(description="The unit of all numbers: parameters, bytes, bytes per token, or ms.")]
    limit: Annotated[float, Field(description="The largest value that is allowed.")]
    original: Annotated[float, Field(description="The intact model's value.")]
    reached: Annotated[dict[str, ReachedTarget], Field(description="What the pruned models reach, by label.")]


class Targets(TypedDict, total=False):
    """The sizes that were asked for."""

    targets: Annotated[
        dict[str, Target],
        Field(description="The targets, by quantity (parameters, bytes, kv-cache, latency); missing without targets."),
    ]


class ScorerResults(TypedDict, total=False):
    """The results of the scorers, and why some are missing."""

    scorers: Annotated[dict[str, Scorer | Removal], Field(description="The results of the scorers, by label.")]
    baselines: Annotated[dict[str, Scorer | Removal], Field(description="The results of the baselines, by label.")]
    left_out: Annotated[
        dict[str, str], Field(description="By label, why a scorer that was not requested by name was left out.")
    ]
    failed: Annotated[
        dict[str, str], Field(description="By label, why a requested component failed while others went on.")
    ]


class Retained(TypedDict, total=False):
    """What the pruned models retain; means over the repeats, if there are several."""

    retained: Annotated[
        dict[str, dict[str, Number]],
        Field(
            description="By label and task, the share of what the intact model knows: 1 is the intact model, 0 a model "
            "that knows nothing; null if the intact model does not know enough of the task, or if the pruned model "
            "produced no finite value."
        ),
    ]
    retained_likelihood: Annotated[
        dict[str, Number],
        Field(description="By label, the mean over the tasks that measure a likelihood; null if there is none."),
    ]
    retained_accuracy: Annotated[
        dict[str, Number], Field(description="By label, the mean over the other tasks; null if there is none.")
    ]
    retained_worst: Annotated[
        dict[str, Number], Field(description="By label, the lower of the two means; null if there is neither.")
    ]


class Measurements(Retained, total=False):
    """The measurements of the evaluators."""

    metrics: Annotated[
        dict[str, dict[str, dict[str, Measured]]],
        Field(
            description="The metrics, by label (under `original` those of the intact model, or of the one that "
            "`evaluate` measures), task and name."
        ),
    ]
    retention: Annotated[
        dict[str, dict[str, dict[str, Number]]],
        Field(
            description="By label, task and metric: pruned / original if higher is better, original / pruned "
            "otherwise; null if a ratio makes no sense."
        ),
    ]
    comparison: Annotated[Comparison, Field(description="A comparison of the pruned models.")]
    notes: Annotated[list[str], Field(description="Notes for a reader of the metrics.")]
    footprint: Annotated[
        dict[str, dict[str, Number]],
        Field(description="By label, the costs in time and space by name, with standard errors as `NAME_stderr`."),
    ]


@closed
class Report(Header, SizeChanges, Targets, ScorerResults, Measurements, SearchResults):
    """The document that `run`, `score`, `prune` and `evaluate` print with `--json`.

    Parts that a command does not produce are missing.
    """

    schema_version: Annotated[Literal["layerimp.report/2"], Field(description="The version of this format.")]
    output: Annotated[str | None, Field(description="The output directory; null without one.")]


@closed
class ScoresFile(Header):
    """The content of `scores.json`."""

    schema_version: Annotated[Literal["layerimp.scores/1"], Field(description="The version of this format.")]
    scorers: Annotated[dict[str, Scores], Field(description="The results of the scorers, by label.")]
    baselines: NotRequired[Annotated[dict[str, Scores], Field(description="The results of the baselines, by label.")]]


@closed
class Plan(TypedDict):
    """A plan: the steps to remove. It is a part of `plan.json`; `layerimp prune --plan` also takes a plan alone."""

    schema_version: Annotated[Literal["layerimp.plan/2"], Field(description="The version of this format.")]
    num_blocks: Annotated[int, Field(description="The number of blocks of the model that the plan is for.")]
    blocks: Annotated[
        list[Step],
        Field(description="The steps to remove, in order: blocks as numbers, other steps as text, such as `17/18`."),
    ]
    reason: Annotated[str, Field(description="Why these steps were chosen, in words.")]
    scorer: Annotated[str | None, Field(description="The scorer whose scores the plan follows, if any.")]
    pruner: Annotated[str | None, Field(description="The pruner that made the plan, if any.")]
    model: Annotated[
        str | None, Field(description="The model that the plan was made for: an absolute path, or a name.")
    ]
    nested: Annotated[
        bool | None,
        Field(description="Whether the first steps are also the plan for fewer blocks; null if not known."),
    ]


@closed
class PlanFile(TypedDict):
    """The content of `plan.json`. `layerimp prune --plan` applies `plans`, but not the plans of baselines."""

    schema_version: Annotated[Literal["layerimp.plans/2"], Field(description="The version of this format.")]
    plans: Annotated[dict[str, Plan], Field(description="The plans, by label.")]
    baselines: NotRequired[Annotated[dict[str, Plan], Field(description="The plans of the baselines, by label.")]]


@closed
class HealingReport(Repaired):
    """The document that `layerimp heal` prints with `--json`."""

    schema_version: Annotated[Literal["layerimp.healing/1"], Field(description="The version of this format.")]
    model: Annotated[str, Field(description="The pruned model, as it was named.")]
    teacher: Annotated[str, Field(description="The intact model.")]
    removed: Annotated[
        list[Step],
        Field(description="The steps removed from the intact model: blocks as numbers, other steps as text (`17/18`)."),
    ]
    healer: Annotated[str, Field(description="The healer.")]
    options: Annotated[dict[str, Any], Field(description="The healer's options.")]
    calibration: Annotated[Calibration, Field(description="The text that drove healing.")]
    changed: Annotated[list[str], Field(description="The parameters that were replaced.")]
    output: Annotated[str, Field(description="The healed checkpoint.")]


@closed
class MetricsFile(SizeChanges, Targets, Measurements, SearchResults):
    """The content of `metrics.json`."""

    schema_version: Annotated[Literal["layerimp.metrics/2"], Field(description="The version of this format.")]


@closed
class Error(TypedDict):
    """An error."""

    kind: Annotated[
        str, Field(description="The name of the error, such as `OptionError`, `UsageError`, `Interrupted`.")
    ]
    message: Annotated[str, Field(description="What is wrong, where, and what would be right, in one line.")]
    exit_code: Annotated[int, Field(description="The exit code of the command.")]


@closed
class ErrorReport(TypedDict):
    """The document that a command prints with `--json` if it fails as a whole."""

    schema_version: Annotated[Literal["layerimp.error/1"], Field(description="The version of this format.")]
    error: Annotated[Error, Field(description="The error.")]

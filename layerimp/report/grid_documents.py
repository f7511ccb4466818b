"""The JSON document of a grid: what `bench --json` prints, and what a page offers for download.

The types are used by the code that makes the document (`report.json_export`). The JSON Schema and the tables of the
reference are generated from them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict  # before Python 3.12, typing.TypedDict lacks what pydantic needs

from layerimp.report import documents
from layerimp.report.json_types import Number, closed
from layerimp.steps import Step

ScorerLabel = Annotated[str, Field(description="The label of the scorer.")]
PrunerLabel = Annotated[str, Field(description="The label of the pruner.")]
Ratio = Annotated[float, Field(description="The share of blocks removed, below 1, or their number.")]


@closed
class Size(TypedDict):
    """The size of a model."""

    blocks: Annotated[int, Field(description="Blocks.")]
    parameters: Annotated[int, Field(description="Parameters; tied weights count once.")]
    bytes: Annotated[int, Field(description="The bytes of the parameters in the stored dtype.")]


@closed
class Interval(TypedDict):
    """A mean over the repeats, and its 95 % confidence interval."""

    mean: Annotated[Number, Field(description="The mean; for perplexities the geometric mean.")]
    low: Annotated[Number, Field(description="The lower end; null if the interval is not known.")]
    high: Annotated[Number, Field(description="The upper end; null if the interval is not known.")]
    n: Annotated[int, Field(description="The number of values in the mean.")]


@closed
class Difference(TypedDict):
    """How much greater one figure is than another; for a perplexity in nats per unit, the logarithm of a factor."""

    mean: Annotated[Number, Field(description="The difference.")]
    low: Annotated[Number, Field(description="The lower end of the 95 % interval; null if not known.")]
    high: Annotated[Number, Field(description="The upper end; null if not known.")]
    p: Annotated[
        Number,
        Field(
            description="The two-sided p-value: the probability of so large a difference by chance alone, corrected "
            "for the number of scorers (Holm); null if not known."
        ),
    ]


@closed
class ScorerFindings(TypedDict):
    """How one scorer scored one model."""

    scores: Annotated[
        list[list[float]],
        Field(description="By repeat, one score per block, or per step in `steps`, by depth; higher means: keep."),
    ]
    blocks: Annotated[list[Interval], Field(description="The mean score of each block, or of each step in `steps`.")]
    steps: NotRequired[
        Annotated[
            list[Step],
            Field(description="The step that each score belongs to, if seams such as `17/18` are scored as well."),
        ]
    ]
    tau_between_repeats: Annotated[
        float | None,
        Field(description="Kendall's tau between repeats, averaged over their pairs; null for a single repeat."),
    ]
    cost_in_bare_passes: Annotated[
        float | None,
        Field(
            description="The time of scoring one batch, as a multiple of a bare forward pass; 0 for a scorer that "
            "reads no text, null if it was not timed."
        ),
    ]


@closed
class Agreement(TypedDict):
    """How much two scorers agree on one model."""

    scorers: Annotated[list[str], Field(description="The labels of the two scorers.")]
    tau: Annotated[
        float | None,
        Field(
            description="Kendall's tau between their scores, averaged over the pairs of repeats; null if one of them "
            "gives all blocks the same score."
        ),
    ]


@closed
class Stability(TypedDict):
    """How far the repeats removed the same blocks."""

    jaccard: Annotated[float, Field(description="The Jaccard index of two repeats' sets, averaged over all pairs.")]
    same: Annotated[float, Field(description="The share of the pairs whose sets are equal.")]


@closed
class Removed(TypedDict):
    """What one pruner removed at one ratio, chosen by the scores of one scorer."""

    pruner: PrunerLabel
    ratio: Ratio
    scorer: ScorerLabel
    blocks: Annotated[
        list[list[Step]],
        Field(description="By repeat, the removed steps in order: blocks as numbers, other steps as text."),
    ]
    stability: Annotated[Stability | None, Field(description="How far the repeats agree; null for a single repeat.")]


@closed
class HealedModels(TypedDict):
    """How one healer healed the models pruned by one scorer, pruner and ratio."""

    pruner: PrunerLabel
    ratio: Ratio
    scorer: ScorerLabel
    healer: Annotated[str, Field(description="The label of the healer.")]
    repeats: Annotated[
        list[documents.Repaired | None], Field(description="What was done, by repeat; null if not known.")
    ]


@closed
class Original(TypedDict):
    """A metric of the intact model."""

    value: Annotated[Number, Field(description="The number.")]
    stderr: Annotated[Number, Field(description="The standard error over the documents; null if there is none.")]


@closed
class Entry(TypedDict):
    """One scorer in one row of a table, with a healer or without one."""

    values: Annotated[list[Number], Field(description="The values of the metric, by repeat.")]
    value: Annotated[Interval, Field(description="The mean of the values.")]
    low: Annotated[
        Number,
        Field(
            description="The mean minus one standard error over the documents, which the repeats share; null if not "
            "known."
        ),
    ]
    high: Annotated[Number, Field(description="The mean plus one standard error.")]
    retention: Annotated[
        Interval | None,
        Field(description="The plain ratio to the intact model's value; null if a ratio makes no sense."),
    ]
    retained: Annotated[
        Interval | None,
        Field(description="What is retained of the task; null if the task does not count by this metric."),
    ]
    to_random: Annotated[
        Difference | None,
        Field(
            description="The difference to the scorer `random`, healed by the same healer if any; null without "
            "`random`, and for `random` itself."
        ),
    ]
    to_best_baseline: Annotated[
        Difference | None,
        Field(
            description="The difference to the best baseline, healed by the same healer if any; null without "
            "baselines, and for that baseline itself."
        ),
    ]
    to_unhealed: Annotated[
        Difference | None,
        Field(description="The difference to the same models before healing; null for unhealed models."),
    ]
    rank: Annotated[
        int | None,
        Field(description="1 if significantly better than all others, 2 if better than all but that one, else null."),
    ]


@closed
class Row(TypedDict):
    """One metric of one task on the model, pruned at one ratio by the scores of each scorer, and healed."""

    pruner: PrunerLabel
    ratio: Ratio
    task: Annotated[str, Field(description="The task; `retained` for what is retained on average.")]
    metric: Annotated[str, Field(description="The metric; for averages `worst`, `likelihood` or `accuracy`.")]
    documents: Annotated[int | None, Field(description="The number of documents; null if not known.")]
    higher_is_better: Annotated[bool, Field(description="Whether a higher value is better.")]
    original: Annotated[Original | None, Field(description="The metric of the intact model; null for averages.")]
    best_baseline: Annotated[
        str | None, Field(description="The label of the best unhealed baseline; null without baselines.")
    ]
    best_healed_baselines: Annotated[
        dict[str, str], Field(description="By label of the healer, the best baseline healed by it.")
    ]
    removed_blocks: Annotated[float, Field(description="The share of blocks removed.")]
    removed_parameters: Annotated[
        list[float], Field(description="The least and the greatest share of parameters removed.")
    ]
    scorers: Annotated[dict[str, Entry], Field(description="The entries by label; SCORER+HEALER for healed models.")]


@closed
class Retained(documents.Retained):
    """What is retained at one pruner and ratio: means over the repeats."""

    pruner: PrunerLabel
    ratio: Ratio


@closed
class RemovableAtLevel(TypedDict):
    """How many blocks may be removed while a share is retained."""

    keep: Annotated[float, Field(description="The share that has to be retained, by the lower of the two means.")]
    counts: Annotated[
        list[int],
        Field(
            description="By repeat, the largest measured number of blocks such that it and all smaller measured "
            "numbers retain the share; 0 if the smallest does not."
        ),
    ]
    value: Annotated[Interval, Field(description="The mean of the counts.")]
    at_least: Annotated[
        bool,
        Field(description="Whether in some repeat all measured numbers retain the share: the mean may be too low."),
    ]


@closed
class RemovableBlocks(TypedDict):
    """How many blocks may be removed by one pruner and one scorer, with or without healing."""

    pruner: PrunerLabel
    scorer: Annotated[str, Field(description="The label of the scorer; SCORER+HEALER for healed models.")]
    measured: Annotated[list[int], Field(description="The numbers of removed blocks that were measured.")]
    levels: Annotated[list[RemovableAtLevel], Field(description="The results at 90, 95 and 99 %.")]


@closed
class ModelFindings(TypedDict):
    """The findings of a grid for one model."""

    num_blocks: Annotated[int, Field(description="The number of blocks of the intact model.")]
    size: Annotated[Size | None, Field(description="The size of the intact model; null if nothing is evaluated yet.")]
    scorers: Annotated[dict[str, ScorerFindings], Field(description="The scores of the scorers, by label.")]
    tau: Annotated[list[Agreement], Field(description="For every ordered pair of scorers.")]
    removed: Annotated[list[Removed], Field(description="One for each pruner, ratio and scorer.")]
    healed: Annotated[list[HealedModels], Field(description="One for each pruner, ratio, scorer and healer.")]
    retained: Annotated[list[Retained], Field(description="One for each pruner and ratio.")]
    rows: Annotated[list[Row], Field(description="The rows of the tables.")]
    removable: Annotated[
        list[RemovableBlocks],
        Field(description="How many blocks may be removed, if several numbers were measured."),
    ]


@closed
class Failure(TypedDict):
    """A cell that failed."""

    cell: Annotated[str, Field(description="The cell, in words.")]
    error: Annotated[str, Field(description="The error.")]


@closed
class Findings(TypedDict):
    """The document that `bench --json` and `report --format json` print."""

    schema_version: Annotated[Literal["layerimp.findings/2"], Field(description="The version of this format.")]
    grid: Annotated[
        dict[str, Any], Field(description="The grid as it was asked for, with the fields of its recipe file.")
    ]
    cells: Annotated[dict[str, int], Field(description="How many cells are `done`, `failed` and `open`.")]
    seconds: Annotated[float, Field(description="The total time of all cells.")]
    versions: Annotated[
        list[str], Field(description="The libraries that computed the cells; several entries if they changed.")
    ]
    notes: Annotated[list[str], Field(description="Notes for a reader of the numbers.")]
    failures: Annotated[list[Failure], Field(description="The cells that failed.")]
    models: Annotated[
        dict[str, ModelFindings], Field(description="The findings by label, without models that have no results yet.")
    ]
    output: NotRequired[Annotated[str, Field(description="The output directory; missing in a page's download.")]]

"""The parts of the findings of a comparison of scorers, as data; `report.results` has the whole."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from layerimp.report.statistics.agreement import self_tau
from layerimp.report.statistics.intervals import Interval, interval

if TYPE_CHECKING:
    from layerimp.evaluator import Metric
    from layerimp.recipe import ComponentSpec, Recipe
    from layerimp.report.data import Size
    from layerimp.report.documents import Repaired
    from layerimp.report.statistics.agreement import Stability
    from layerimp.report.statistics.intervals import Difference
    from layerimp.report.statistics.removable import Removable
    from layerimp.report.statistics.retained import Retained
    from layerimp.steps import Cuts, Step

Key = tuple[str, str]
"""A task and a metric."""
RETAINED = "retained"
"""The name in place of a task in rows for what is retained on average."""


@dataclass(frozen=True)
class Contender:
    """One of the things that a grid compares: the models pruned by one scorer's plans, unhealed or healed.

    Attributes:
        scorer: The label of the scorer.
        healer: The label of the healer; empty for models that are not healed.
    """

    scorer: str
    healer: str = ""

    @property
    def label(self) -> str:
        """The name in tables: SCORER, or SCORER+HEALER."""
        return f"{self.scorer}+{self.healer}" if self.healer else self.scorer


def contenders(scorers: Iterable[str], healers: Collection[str]) -> dict[str, Contender]:
    """Return all contenders by label: for each scorer the unhealed models, then those healed by each healer."""
    found = [Contender(scorer, healer) for scorer in scorers for healer in ("", *healers)]
    return {one.label: one for one in found}


@dataclass(frozen=True)
class Pruned:
    """A pruned model: what one repeat of a scorer removed at one ratio, and the results.

    Attributes:
        draw: The number of the repeat.
        blocks: The removed steps, in order.
        size: The size of the pruned model; None if it is not evaluated yet.
        metrics: The metrics, by task and name.
        healing: What was done to heal the model; None if it is not healed, or not evaluated yet.
    """

    draw: int
    blocks: tuple[Step, ...]
    size: Size | None
    metrics: Mapping[Key, Metric]
    healing: Repaired | None = None


@dataclass(frozen=True)
class Entry:
    """One contender in one row of a table.

    Attributes:
        contender: The scorer, and the healer if there is one.
        values: The values of the metric, by repeat.
        value: The mean of the values and its interval; for perplexities the geometric mean, with an interval that is
            computed for the loss.
        ends: The mean minus and plus one standard error over the task's documents, which the repeats share.
        retention: The plain ratio to the intact model's value; None if the ratio makes no sense.
        retained: What is retained of the task, if the task counts by this metric.
        to_random: The difference to `random`, healed by the same healer if any; for a likelihood in nats per unit. None
            without `random`, and for `random` itself.
        to_baseline: The difference to the best baseline, `random` included, healed by the same healer if any; None
            without baselines, and for that baseline itself.
        to_unhealed: The difference to the same models before healing; None for unhealed models.
        rank: 1 if significantly better than all others, 2 if significantly better than all but that one; else None.
    """

    contender: Contender
    values: Sequence[float]
    value: Interval
    ends: tuple[float, float] | None
    retention: Interval | None
    retained: Interval | None
    to_random: Difference | None
    to_baseline: Difference | None
    to_unhealed: Difference | None
    rank: int | None

    @property
    def label(self) -> str:
        """The name in tables."""
        return self.contender.label


@dataclass(frozen=True)
class Row:
    """One metric of one task on one model, pruned by each scorer at one ratio, and healed by each healer.

    Attributes:
        model: The label of the model.
        pruner: The label of the pruner.
        ratio: The share or the number of blocks removed.
        task: The task; `retained` for what is retained on average.
        metric: The metric; for averages `worst`, `likelihood` or `accuracy`.
        original: The metric of the intact model; None for averages.
        higher_is_better: Whether a higher value is better.
        entries: The entries, by label of the contender.
        baselines: For each healer, the label of the best baseline, to which the others are compared; under the empty
            name for unhealed models.
        removed_blocks: The share of the blocks that is removed.
        removed_parameters: The least and the greatest share of the parameters that is removed.
    """

    model: str
    pruner: str
    ratio: float
    task: str
    metric: str
    original: Metric | None
    higher_is_better: bool
    entries: Mapping[str, Entry]
    baselines: Mapping[str, str]
    removed_blocks: float
    removed_parameters: tuple[float, float]

    @property
    def factors(self) -> bool:
        """Whether differences are logarithms of factors, as for a perplexity."""
        likelihood = None if self.original is None else self.original.likelihood
        return likelihood is not None and not likelihood.bits


@dataclass(frozen=True)
class Scored:
    """The scores of one scorer for one model.

    Attributes:
        steps: The scored steps, in depth order: blocks, and seams if they may be cut.
        scores: The scores, by repeat and step.
        means: The mean score of each step, and its interval.
        tau: Kendall's tau between the repeats.
        cost: The time of scoring, in bare passes of the backbone; 0 for a scorer that does not look at the model, None
            if it was not timed.
    """

    steps: Sequence[Step]
    scores: Sequence[Sequence[float]]
    means: Sequence[Interval]
    tau: float | None
    cost: float | None

    @classmethod
    def of(cls, steps: Sequence[Step], scores: Sequence[Sequence[float]], cost: float | None) -> Scored:
        """Make the findings of one scorer from its scores by repeat and step; see the attributes."""
        return cls(steps, scores, [interval(values) for values in zip(*scores, strict=True)], self_tau(scores), cost)


@dataclass(frozen=True)
class ModelFindings:
    """The findings of a grid for one model.

    Attributes:
        label: The label of the model.
        num_blocks: The number of blocks of the intact model.
        size: The size of the intact model; None if nothing is evaluated yet.
        scored: The scores, by scorer.
        agreement: Kendall's tau between two scorers, averaged over the repeats.
        pruned: The unhealed models, by pruner, ratio and scorer.
        healed: The healed models, by pruner, ratio and contender.
        stability: How much the removed sets of the repeats agree, by pruner, ratio and scorer.
        retained: What is retained, by pruner, ratio and label of the contender.
        rows: The rows of the tables.
        removable: How many blocks may be removed, by pruner and label of the contender.
        notes: Notes for a reader of the rows.
        answer: The answer to another question than which contender retains most, which leads the page instead; empty if
            there was no such question.
    """

    label: str
    num_blocks: int
    size: Size | None
    scored: Mapping[str, Scored]
    agreement: Mapping[tuple[str, str], float | None]
    pruned: Mapping[tuple[str, float, str], Sequence[Pruned]]
    healed: Mapping[tuple[str, float, Contender], Sequence[Pruned]]
    stability: Mapping[tuple[str, float, str], Stability]
    retained: Mapping[tuple[str, float, str], Retained]
    rows: Sequence[Row]
    removable: Mapping[tuple[str, str], Removable]
    notes: Sequence[str] = ()
    answer: str = ""

    @property
    def documents(self) -> dict[str, int | None]:
        """The number of documents of each task; None if not known."""
        return {row.task: row.original.count for row in self.rows if row.original is not None}

    @property
    def repeated(self) -> bool:
        """Whether any scorer scored more than once, so that repeats can be compared."""
        return any(len(one.scores) > 1 for one in self.scored.values())

    @property
    def headlines(self) -> list[Row]:
        """The rows for what is retained on average: the lower of two means, or the only one, per pruner and ratio."""
        first: dict[tuple[str, float], Row] = {}
        for row in self.rows:
            if row.task == RETAINED and row.original is None:
                first.setdefault((row.pruner, row.ratio), row)
        return list(first.values())


@dataclass(frozen=True)
class Design:
    """The design of a comparison.

    Attributes:
        models: The recipe for each model, by label.
        measured: The tasks that each model was evaluated on, by label.
        scorers: The scorers, by label.
        blind: The labels of scorers that do not look at the model, so that no text changes their scores.
        baselines: The labels of the baselines.
        pruners: The pruners, by label.
        healers: The healers, by label.
        ratios: The shares, or the numbers, of blocks to remove.
        repeats: How often each scoring was done.
        seed: The seed of the first repeat.
        cuts: What may be removed: whole blocks, or seams as well.
        protect: The blocks to keep regardless of scores.
        limit: The largest number of documents per task; None for all.
        num_fewshot: The number of examples in each prompt; None for the task's own number.
        asked: The complete request, as plain data.
    """

    models: Mapping[str, Recipe]
    measured: Mapping[str, Sequence[str]]
    scorers: Mapping[str, ComponentSpec]
    blind: Collection[str]
    baselines: Collection[str]
    pruners: Mapping[str, ComponentSpec]
    healers: Mapping[str, ComponentSpec]
    ratios: Sequence[float]
    repeats: int
    seed: int
    cuts: Cuts
    protect: Sequence[int]
    limit: int | None
    num_fewshot: int | None
    asked: Mapping[str, Any]

    @property
    def contenders(self) -> dict[str, Contender]:
        """The contenders, by label: the columns of the tables."""
        return contenders(self.scorers, self.healers)


@dataclass(frozen=True)
class Compared:
    """A design and its findings: the data behind all tables.

    Attributes:
        design: The design of the comparison.
        models: The findings by label of the model, without models that have no results yet.
    """

    design: Design
    models: Mapping[str, ModelFindings]

"""What a comparison of scorers shows, as data."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from layerimp.report.statistics import Interval, interval, self_tau

if TYPE_CHECKING:
    from layerimp.evaluator import Metric
    from layerimp.recipe import ComponentSpec, Recipe
    from layerimp.report.data import Size
    from layerimp.report.documents import Repaired
    from layerimp.report.removable import Removable
    from layerimp.report.retained import Retained
    from layerimp.report.statistics import Difference, Stability
    from layerimp.steps import Cuts, Step

Key = tuple[str, str]
"""A task and a metric."""
RETAINED = "retained"
"""What stands for a task in the rows of what is retained on average."""


@dataclass(frozen=True)
class Contender:
    """What is compared in a row: the models that one scorer's plans leave, as they are or healed.

    Attributes:
        scorer: The label of the scorer.
        healer: The label of the healer; empty where nothing is healed.
    """

    scorer: str
    healer: str = ""

    @property
    def label(self) -> str:
        """What tables call it: SCORER, or SCORER+HEALER."""
        return f"{self.scorer}+{self.healer}" if self.healer else self.scorer


def contenders(scorers: Iterable[str], healers: Collection[str]) -> dict[str, Contender]:
    """All contenders by label: of each scorer what is not healed, then what each healer makes of it."""
    found = [Contender(scorer, healer) for scorer in scorers for healer in ("", *healers)]
    return {one.label: one for one in found}


@dataclass(frozen=True)
class Pruned:
    """What one scorer's repeat removed at one ratio, and what is left.

    Attributes:
        draw: The number of the repeat.
        blocks: The steps that were taken, in order.
        size: What remains of the model; None as long as nothing is evaluated.
        metrics: By task and metric.
        healing: What was done to heal the model; None where nothing was, and as long as nothing is evaluated.
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
        values: The metric, by repeat.
        value: Their mean and interval; of perplexities the geometric mean, with an interval that is made in the loss.
        ends: One standard error over the task's documents down and up from the mean; the repeats share the documents.
        retention: The plain ratio to the intact model's value; None where that says nothing.
        retained: What is retained of the task, where it counts by this metric.
        to_random: The difference to `random`, healed by the same healer if by any, of a likelihood in nats per unit;
            None where there is none, and for itself.
        to_baseline: The difference to the best of the other baselines and of `random`, healed by the same healer if by
            any; None where there is none, and for that one itself.
        to_unhealed: The difference to the same models before they were healed; None where nothing is healed.
        rank: 1 where it is significantly better than all others, 2 where it is significantly better than all but that
            one; else None.
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
        """What tables call it."""
        return self.contender.label


@dataclass(frozen=True)
class Row:
    """One metric of one task on one model, pruned by each scorer at one ratio, and healed by each healer.

    Attributes:
        model: The label of the model.
        pruner: The label of the pruner.
        ratio: The share or the number of the blocks that go.
        task: The task; `retained` for what is retained on average.
        metric: The metric; of the averages `worst`, `likelihood` or `accuracy`.
        original: Of the intact model; None for the averages.
        higher_is_better: The direction.
        entries: By label of the contender.
        baselines: The label of the best baseline, to which the others are compared: by healer, under the empty name
            where nothing is healed.
        removed_blocks: The share of the blocks that go.
        removed_parameters: The least and the greatest share of the parameters that go.
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
        """Whether its differences are logarithms of factors: those of a perplexity."""
        likelihood = None if self.original is None else self.original.likelihood
        return likelihood is not None and not likelihood.bits


@dataclass(frozen=True)
class Scored:
    """What one scorer says of one model.

    Attributes:
        steps: What is scored, in depth order: blocks, and seams where they may be cut.
        scores: By repeat, by step.
        means: By step, the mean and the interval of its score.
        tau: Kendall's tau between the repeats.
        cost: In bare passes of the backbone; 0 for a scorer that looks at nothing, None where it was not timed.
    """

    steps: Sequence[Step]
    scores: Sequence[Sequence[float]]
    means: Sequence[Interval]
    tau: float | None
    cost: float | None

    @classmethod
    def of(cls, steps: Sequence[Step], scores: Sequence[Sequence[float]], cost: float | None) -> Scored:
        """What one scorer says, from its scores by repeat and by step; see the attributes."""
        return cls(steps, scores, [interval(values) for values in zip(*scores, strict=True)], self_tau(scores), cost)


@dataclass(frozen=True)
class ModelFindings:
    """What a grid shows of one model.

    Attributes:
        label: Its label.
        num_blocks: How many blocks it has.
        size: Of the intact model; None as long as nothing is evaluated.
        scored: By scorer.
        agreement: Kendall's tau between two scorers, averaged over the repeats.
        pruned: What is not healed, by pruner, ratio and scorer.
        healed: The same models healed, by pruner, ratio and contender.
        stability: How much the removed sets of the repeats agree, by pruner, ratio and scorer.
        retained: What is left of what the intact model knows, by pruner, ratio and label of the contender.
        rows: The tables.
        removable: How many blocks may go, by pruner and label of the contender.
        notes: What a reader of the rows has to know.
        answer: What was asked for besides who retains most, and leads the page in its place; empty where nothing was.
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
        """How many documents each task has; None where that is not known."""
        return {row.task: row.original.count for row in self.rows if row.original is not None}

    @property
    def repeated(self) -> bool:
        """Whether any scorer scored more than once, so that there is something to say over the repeats."""
        return any(len(one.scores) > 1 for one in self.scored.values())

    @property
    def headlines(self) -> list[Row]:
        """What is retained on average: the lower of the two means, or the only one, at each pruner and ratio."""
        first: dict[tuple[str, float], Row] = {}
        for row in self.rows:
            if row.task == RETAINED and row.original is None:
                first.setdefault((row.pruner, row.ratio), row)
        return list(first.values())


@dataclass(frozen=True)
class Design:
    """What was compared with what.

    Attributes:
        models: What was asked of each model, by label.
        measured: The tasks that each model was evaluated on, by label.
        scorers: The scorers, by label.
        blind: The labels of those that look at nothing, so that no text changes their scores.
        baselines: The labels of those that the others are held against.
        pruners: The pruners, by label.
        healers: The healers, by label.
        ratios: The shares, or the numbers, of the blocks that go.
        repeats: How often each scoring was done.
        seed: The seed of the first repeat.
        cuts: What may go: whole blocks, or seams as well.
        protect: The blocks that stay whatever their score.
        limit: The most documents of a task; None for all.
        num_fewshot: Examples in each prompt; None for as many as the task says.
        asked: All that was asked for, as plain data.
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
        """What rows compare, by label: the columns of the tables."""
        return contenders(self.scorers, self.healers)


@dataclass(frozen=True)
class Findings:
    """What a grid, or a run, shows.

    Attributes:
        design: What was compared.
        models: What the grid shows, by label of the model; without models of which nothing is known yet.
        cells: How many cells there are, by state: `done`, `failed`, `open`; empty for a run, which has none.
        failures: What failed, and why.
        seconds: What all cells took.
        versions: Of the libraries that computed them; several where they were changed on the way.
        notes: What a reader has to know besides.
    """

    design: Design
    models: Mapping[str, ModelFindings]
    cells: Mapping[str, int]
    failures: Sequence[tuple[str, str]]
    seconds: float
    versions: Sequence[str] = ()
    notes: Sequence[str] = ()

    @property
    def complete(self) -> bool:
        """Whether nothing that was asked for is missing."""
        return not (self.failures or self.cells.get("failed") or self.cells.get("open"))

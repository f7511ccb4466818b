"""What the cells of a grid show, as data: from the store alone, with no model and no plugin."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from layerimp.bench.cells import Cell, Result
from layerimp.bench.layout import Layout
from layerimp.bench.statistics import (
    Interval,
    Stability,
    difference,
    interval,
    mean_tau,
    self_tau,
    tells,
    with_noise,
)
from layerimp.bench.store import Record
from layerimp.comparison import average_retention
from layerimp.evaluator import Metric, retention
from layerimp.report import Size

RANDOM = "random"
Key = tuple[str, str]
"""A task and a metric."""


@dataclass(frozen=True)
class Pruned:
    """What one scorer's repeat removed at one ratio, and what is left.

    Attributes:
        draw: The number of the repeat.
        blocks: In order of removal.
        size: What remains of the model; None as long as nothing is evaluated.
        metrics: By task and metric.
    """

    draw: int
    blocks: tuple[int, ...]
    size: Size | None
    metrics: Mapping[Key, Metric]


@dataclass(frozen=True)
class Entry:
    """One scorer in one row of a table.

    Attributes:
        scorer: Its label.
        values: The metric, by repeat.
        value: Their mean and interval.
        stderr: The standard error over the task's documents; the repeats share the documents.
        retention: Of the intact model's value; None where that says nothing.
        to_random: The difference to `random`; None where there is none, and for itself.
        to_baseline: The difference to the best of the other baselines and of `random`; None where there is none, and
            for that one itself.
        rank: 1 where it is significantly better than all others, 2 where it is so than all but that one; else None.
    """

    scorer: str
    values: Sequence[float]
    value: Interval
    stderr: float | None
    retention: Interval | None
    to_random: Interval | None
    to_baseline: Interval | None
    rank: int | None


@dataclass(frozen=True)
class Row:
    """One metric of one task on one model, pruned by each scorer at one ratio.

    Attributes:
        model: The label of the model.
        pruner: The label of the pruner.
        ratio: The share or the number of the blocks that go.
        task: The task; `average` for the retention over all tasks.
        metric: The metric.
        original: Of the intact model; None for the average.
        higher_is_better: The direction.
        entries: By scorer.
        baseline: The label of the best baseline, to which the others are compared.
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
    baseline: str | None
    removed_blocks: float
    removed_parameters: tuple[float, float]


@dataclass(frozen=True)
class Scored:
    """What one scorer says of one model.

    Attributes:
        scores: By repeat, by block.
        blocks: By block, the mean and the interval of its score.
        tau: Kendall's tau between the repeats.
        cost: In bare passes of the backbone; 0 for a scorer that looks at nothing, None where it was not timed.
    """

    scores: Sequence[Sequence[float]]
    blocks: Sequence[Interval]
    tau: float | None
    cost: float | None


@dataclass(frozen=True)
class ModelFindings:
    """What a grid shows of one model.

    Attributes:
        label: Its label.
        num_blocks: How many blocks it has.
        size: Of the intact model; None as long as nothing is evaluated.
        scored: By scorer.
        agreement: Kendall's tau between two scorers, averaged over the repeats.
        pruned: By pruner, ratio and scorer.
        stability: How much the removed sets of the repeats agree, by pruner, ratio and scorer.
        rows: The tables.
    """

    label: str
    num_blocks: int
    size: Size | None
    scored: Mapping[str, Scored]
    agreement: Mapping[tuple[str, str], float | None]
    pruned: Mapping[tuple[str, float, str], Sequence[Pruned]]
    stability: Mapping[tuple[str, float, str], Stability]
    rows: Sequence[Row]


@dataclass(frozen=True)
class Findings:
    """What a grid shows.

    Attributes:
        layout: The grid.
        models: What it shows, by label of the model; without models of which nothing is known yet.
        cells: How many cells there are, by state: `done`, `failed`, `open`.
        failures: What failed, and why.
        seconds: What all cells took.
        versions: Of the libraries that computed them; several where they were changed on the way.
    """

    layout: Layout
    models: Mapping[str, ModelFindings]
    cells: Mapping[str, int]
    failures: Sequence[tuple[str, str]]
    seconds: float
    versions: Sequence[str] = field(default_factory=list)


def find(layout: Layout, records: Mapping[str, Record]) -> Findings:
    """What the cells show of a grid; those of other grids in the same store are left alone."""
    results = {key: record.result for key, record in records.items() if record.result is not None}
    cells = layout.cells(results.get)
    own = {key: records[key] for key in cells if key in records}
    failed = [(str(cells[key]), record.error) for key, record in own.items() if record.result is None]
    done = len(own) - len(failed)
    found = {label: _Model(layout, label, results).findings() for label in layout.models}
    return Findings(
        layout=layout,
        models={label: one for label, one in found.items() if one is not None},
        cells={"done": done, "failed": len(failed), "open": len(cells) - len(own)},
        failures=sorted(failed),
        seconds=sum(record.seconds for record in own.values()),
        versions=sorted({record.versions for record in own.values()}),
    )


@dataclass(frozen=True)
class _Value:
    """A number of one repeat, its standard error over the documents, and the blocks that it is without."""

    draw: int
    value: float
    stderr: float | None
    blocks: tuple[int, ...]


def _removals(values: Sequence[_Value]) -> set[frozenset[int]]:
    """The sets of blocks that go."""
    return {frozenset(one.blocks) for one in values}


@dataclass
class _Model:
    """One model of the layout, and all results."""

    layout: Layout
    label: str
    results: Mapping[str, Result]

    def _known(self, cell: Cell) -> Any:
        return self.results.get(cell.key)

    def findings(self) -> ModelFindings | None:
        layout, label = self.layout, self.label
        scored = {scorer: each for scorer in layout.scorers if (each := self._scored(scorer))}
        if not scored:
            return None
        num_blocks = len(next(iter(scored.values())).blocks)
        scores = {scorer: one.scores for scorer, one in scored.items()}
        agreement = {(a, b): mean_tau(scores[a], scores[b]) for a, b in product(scored, scored) if a != b}
        intact, size = self._evaluated(())
        keys = list(product(layout.pruners, layout.grid.ratios, scored))
        pruned = {key: found for key in keys if (found := list(self._pruned(*key, num_blocks)))}
        stability = {
            key: one
            for key, found in pruned.items()
            if (one := Stability.of([frozenset(each.blocks) for each in found]))
        }
        rows = [
            row
            for pruner, ratio in product(layout.pruners, layout.grid.ratios)
            for row in self._rows(pruner, ratio, pruned, intact, size, num_blocks)
        ]
        return ModelFindings(label, num_blocks, size, scored, agreement, pruned, stability, rows)

    def _scored(self, scorer: str) -> Scored | None:
        layout, label = self.layout, self.label
        found = [self._known(layout.scoring(label, scorer, draw)) for draw in layout.draws(scorer)]
        scores = [one["scores"] for one in found if one is not None]
        if not scores:
            return None
        cost = 0.0
        if not layout.scorers[scorer].blind:
            timed = self._known(layout.costing(label, scorer))
            cost = math.nan if timed is None else timed["bare_passes"]
        blocks = [interval(values) for values in zip(*scores, strict=True)]
        return Scored(scores, blocks, self_tau(scores), None if math.isnan(cost) else cost)

    def _evaluated(self, blocks: tuple[int, ...]) -> tuple[dict[Key, Metric], Size | None]:
        """All metrics without some blocks, and the size; what is missing is left out."""
        metrics: dict[Key, Metric] = {}
        size = None
        for measure in self.layout.models[self.label].measures:
            if (found := self._known(self.layout.evaluation(self.label, blocks, measure))) is not None:
                size = Size(**found["size"])
                metrics |= {(one["task"], one["name"]): Metric(**one) for one in found["metrics"]}
        return metrics, size

    def _pruned(self, pruner: str, ratio: float, scorer: str, num_blocks: int) -> Iterator[Pruned]:
        layout = self.layout
        for draw in layout.draws(scorer):
            plan = self._known(layout.planning(self.label, scorer, draw, pruner, ratio, num_blocks))
            if plan is not None:
                blocks = layout.removed(plan, ratio, num_blocks)
                metrics, size = self._evaluated(blocks)
                yield Pruned(draw, blocks, size, metrics)

    def _rows(
        self,
        pruner: str,
        ratio: float,
        pruned: Mapping[tuple[str, float, str], Sequence[Pruned]],
        intact: Mapping[Key, Metric],
        size: Size | None,
        num_blocks: int,
    ) -> Iterator[Row]:
        """The rows of one pruner and ratio: of each metric, and of the average retention."""
        here = {scorer: found for (p, r, scorer), found in pruned.items() if (p, r) == (pruner, ratio)}
        sizes = [one.size for found in here.values() for one in found if one.size]
        if size is None or not sizes:
            return
        blocks = (num_blocks - sizes[0].blocks) / num_blocks
        shares = [(size.parameters - one.parameters) / size.parameters for one in sizes]

        def row(task: str, metric: str, original: Metric | None, higher: bool, table: dict[str, list[_Value]]) -> Row:
            entries, baseline = self._entries(table, original, higher=higher)
            reduction = min(shares), max(shares)
            return Row(self.label, pruner, ratio, task, metric, original, higher, entries, baseline, blocks, reduction)

        for key, metric in intact.items():
            table = {
                scorer: [_Value(one.draw, one.metrics[key].value, one.metrics[key].stderr, one.blocks) for one in found]
                for scorer, found in here.items()
                if all(key in one.metrics for one in found)
            }
            if table:
                yield row(*key, metric, metric.higher_is_better, table)
        table = {scorer: self._averages(found, intact) for scorer, found in here.items()}
        if table := {scorer: values for scorer, values in table.items() if values}:
            yield row("average", "retention", None, True, table)

    def _averages(self, found: Sequence[Pruned], intact: Mapping[Key, Metric]) -> list[_Value]:
        """The retention over all tasks, by repeat; none where a metric is missing anywhere."""
        values = []
        for one in found:
            average = average_retention(intact, one.metrics)
            if average is None:
                return []
            values.append(_Value(one.draw, average.value, average.stderr, one.blocks))
        return values

    def _entries(
        self, table: Mapping[str, list[_Value]], original: Metric | None, *, higher: bool
    ) -> tuple[dict[str, Entry], str | None]:
        sign = 1 if higher else -1
        means = {scorer: sign * sum(one.value for one in values) / len(values) for scorer, values in table.items()}
        order = sorted(table, key=lambda scorer: -means[scorer])
        rivals = [scorer for scorer in order if scorer in self.layout.grid.baselines]
        best = rivals[0] if rivals else None
        ranks = self._ranks(table, order)
        entries = {}
        for scorer, values in table.items():
            numbers = [one.value for one in values]
            entries[scorer] = Entry(
                scorer=scorer,
                values=numbers,
                value=interval(numbers),
                stderr=_mean_stderr(values),
                retention=_retained(original, numbers) if original else None,
                to_random=self._difference(table, scorer, RANDOM) if RANDOM in table and scorer != RANDOM else None,
                to_baseline=self._difference(table, scorer, best) if best and scorer != best else None,
                rank=ranks.get(scorer),
            )
        return entries, best

    def _ranks(self, table: Mapping[str, list[_Value]], order: Sequence[str]) -> dict[str, int]:
        """1 for who is significantly better than all behind, 2 for who is so among the others; equals share a place."""
        ranks: dict[str, int] = {}
        left = list(order)
        for place in (1, 2):
            equals = [
                scorer for scorer in left if [v.value for v in table[scorer]] == [v.value for v in table[left[0]]]
            ]
            left = [scorer for scorer in left if scorer not in equals]
            if left and all(tells(self._difference(table, equals[0], other)) for other in left):
                ranks |= dict.fromkeys(equals, place)
            if not left:
                break
        return ranks

    def _difference(self, table: Mapping[str, list[_Value]], one: str, other: str) -> Interval:
        """How much greater `one` is, with what the draws of text and of documents leave uncertain."""
        ours, theirs = table[one], table[other]
        blind = [self.layout.scorers[scorer].blind for scorer in (one, other)]
        paired = not any(blind) and [v.draw for v in ours] == [v.draw for v in theirs]
        found = difference([v.value for v in ours], [v.value for v in theirs], paired=paired)
        if len(_removals(ours) | _removals(theirs)) == 1:
            return found  # one and the same model, whose documents are no source of a difference
        errors = [_mean_stderr(values) for values in (ours, theirs)]
        known = [error for error in errors if error is not None]
        return with_noise(found, math.hypot(*known) if len(known) == 2 else None)


def _mean_stderr(values: Sequence[_Value]) -> float | None:
    """The repeats share the documents, so that their errors do not average out."""
    errors = [one.stderr for one in values if one.stderr is not None]
    return sum(errors) / len(errors) if len(errors) == len(values) else None


def _retained(original: Metric, values: Sequence[float]) -> Interval | None:
    found = [
        retention(original, Metric(original.task, original.name, value, None, original.higher_is_better))
        for value in values
    ]
    known = [share for share in found if share is not None]
    return interval(known) if len(known) == len(values) else None

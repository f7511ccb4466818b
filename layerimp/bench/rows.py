"""The rows of the tables: one metric of one task, by scorer, with what may be said of the differences."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from layerimp.bench.cell_graph import Layout
from layerimp.defaults import RANDOM
from layerimp.evaluator import Metric, retention
from layerimp.report.comparison import average_retention
from layerimp.report.data import Size
from layerimp.report.findings import Entry, Key, Pruned, Row
from layerimp.report.statistics import Interval, difference, interval, tells, with_noise


@dataclass(frozen=True)
class _Value:
    """A number of one repeat, its standard error over the documents, and the blocks that it is without."""

    draw: int
    value: float
    stderr: float | None
    blocks: tuple[int, ...]


@dataclass(frozen=True)
class Rows:
    """The rows of one model at one pruner and ratio.

    Attributes:
        layout: The grid.
        model: The label of the model.
        pruner: The label of the pruner.
        ratio: The share or the number of the blocks that go.
        intact: What the intact model's metrics are.
        size: The intact model's.
    """

    layout: Layout
    model: str
    pruner: str
    ratio: float
    intact: Mapping[Key, Metric]
    size: Size

    def of(self, pruned: Mapping[str, Sequence[Pruned]]) -> Iterator[Row]:
        """A row for each metric, and one for the average retention; none before a pruned model is evaluated."""
        sizes = [one.size for found in pruned.values() for one in found if one.size]
        if not sizes:
            return
        shares = [(self.size.parameters - one.parameters) / self.size.parameters for one in sizes]
        removed = (self.size.blocks - sizes[0].blocks) / self.size.blocks, (min(shares), max(shares))
        for key, metric in [*self.intact.items(), (("average", "retention"), None)]:
            values = {scorer: self._values(key, metric, found) for scorer, found in pruned.items()}
            if table := {scorer: numbers for scorer, numbers in values.items() if numbers}:
                yield self._row(key, metric, table, removed)

    def _values(self, key: Key, original: Metric | None, found: Sequence[Pruned]) -> list[_Value]:
        """A metric, or the retention over all tasks, by repeat; none where one is missing anywhere."""
        values = []
        for one in found:
            measured = one.metrics.get(key) if original else average_retention(self.intact, one.metrics)
            if measured is None:
                return []
            values.append(_Value(one.draw, measured.value, measured.stderr, one.blocks))
        return values

    def _row(
        self,
        key: Key,
        original: Metric | None,
        table: Mapping[str, list[_Value]],
        removed: tuple[float, tuple[float, float]],
    ) -> Row:
        higher = original is None or original.higher_is_better
        sign = 1 if higher else -1
        means = {scorer: sign * sum(one.value for one in values) / len(values) for scorer, values in table.items()}
        order = sorted(table, key=lambda scorer: -means[scorer])
        best = next((scorer for scorer in order if scorer in self.layout.grid.baselines), None)
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
        return Row(self.model, self.pruner, self.ratio, *key, original, higher, entries, best, *removed)

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
        if len({frozenset(each.blocks) for each in (*ours, *theirs)}) == 1:
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

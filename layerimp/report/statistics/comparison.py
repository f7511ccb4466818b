"""The comparison of pruned models: what each retains, which are best, and notes for a reader."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from layerimp.defaults import ORIGINAL
from layerimp.evaluator import Metric
from layerimp.report.statistics.paired_bootstrap import Estimate, difference, unbeaten
from layerimp.report.statistics.retained import FEW, Key, Retained, counting, summed_up, why_nothing

FAR = 10.0
"""A perplexity that exceeds the best one by this factor never counts as equal to it, however few the documents."""


@dataclass(frozen=True)
class Comparison:
    """A comparison of pruned models.

    Attributes:
        labels: The models, from the one that retains most to the one that retains least.
        counting: By task, the intact model's metric by which the task counts.
        retained: By label, what the model retains.
        best: By task and metric, the labels that no other model beats: the best, and those that do not differ from it
            significantly. Empty if errors are not known, or if there is nothing to compare.
        best_retained: The same for the lower of the two means that each model retains.
        notes: Notes for a reader of the numbers.
    """

    labels: Sequence[str]
    counting: Mapping[str, Metric]
    retained: Mapping[str, Retained]
    best: Mapping[Key, frozenset[str]]
    best_retained: frozenset[str]
    notes: Sequence[str]

    def counts(self, metric: Metric) -> bool:
        """Whether a metric is the one by which its task counts."""
        return metric.task in self.counting and self.counting[metric.task].name == metric.name

    @classmethod
    def of(cls, metrics: Mapping[str, Sequence[Metric]]) -> Comparison:
        """Compare the metrics of models by label, with those of the intact model under `original`."""
        tables = {label: {(m.task, m.name): m for m in found} for label, found in metrics.items()}
        intact = tables.pop(ORIGINAL, {})
        by_task = counting(intact.values())
        retained = {label: summed_up(by_task, [table]) for label, table in tables.items()}
        worst = {label: one.worst for label, one in retained.items()}
        # Sorting is stable: models without known figures stay in the order in which they were asked for.
        labels = sorted(
            tables, key=lambda label: -math.inf if (one := worst[label]) is None else one.mean, reverse=True
        )
        notes = [
            *unknown(intact, by_task),
            *above_the_intact(by_task, {label: [table] for label, table in tables.items()}, retained),
        ]
        return cls(
            labels,
            by_task,
            retained,
            _best(intact, tables),
            unbeaten({label: one for label, one in worst.items() if one is not None}, higher=True),
            notes,
        )


def _best(intact: Mapping[Key, Metric], tables: Mapping[str, Mapping[Key, Metric]]) -> dict[Key, frozenset[str]]:
    """Return by task and metric the labels that no other label beats."""
    found = {}
    for _, group in groupby(intact, key=lambda key: key[0]):
        keys = list(group)
        likelihoods = [key for key in keys if intact[key].likelihood is not None]
        # A likelihood has the same winner in every unit; a factor is largest in the largest unit.
        widest = min(likelihoods, key=lambda key: _units(intact[key]), default=None)
        for key in keys:
            found[key] = _unbeaten(intact, tables, widest if key in likelihoods and widest else key)
    return found


def _units(metric: Metric) -> float:
    return 0.0 if metric.likelihood is None else sum(metric.likelihood.units)


def _unbeaten(intact: Mapping[Key, Metric], tables: Mapping[str, Mapping[Key, Metric]], key: Key) -> frozenset[str]:
    estimates = {label: Estimate.of([table[key]]) for label, table in tables.items() if key in table}
    equal = unbeaten(estimates, higher=intact[key].higher_is_better)
    if not equal or intact[key].higher_is_better:
        return equal
    values = {label: tables[label][key].value for label in equal}
    return frozenset(label for label in equal if values[label] < FAR * min(values.values()) or values[label] <= 0)


def unknown(intact: Mapping[Key, Metric], by_task: Mapping[str, Metric]) -> Iterator[str]:
    """Yield notes on what the intact model's metrics cannot show, and why."""
    yield from small(by_task.values())
    for task, metric in by_task.items():
        if reason := why_nothing(metric):
            yield reason
        elif metric.likelihood is None and metric.floor is None:
            yield f"{task}: the evaluator gives no floor of {metric.name}, so that what chance gives counts as retained"
    if unsure := [f"{m.name} of {m.task}" for m in intact.values() if m.stderr is None]:
        yield f"no error is known, so that no winner can be determined: {_few(unsure)}"
    if alone := [f"{m.name} of {m.task}" for m in intact.values() if m.count is None and m.stderr is not None]:
        yield f"not known document by document, and so compared as if on different ones: {_few(alone)}"


def small(metrics: Iterable[Metric]) -> Iterator[str]:
    """Yield warnings about tasks with few documents."""
    for metric in metrics:
        if (count := metric.count) is not None and count < FEW:
            plural = "s" * (count > 1)
            yield f"{metric.task} has {count} document{plural}: under {FEW}, only large differences can be detected"


def _few(names: Sequence[str]) -> str:
    """List at most three names, and say how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def above_the_intact(
    by_task: Mapping[str, Metric],
    tables: Mapping[str, Sequence[Mapping[Key, Metric]]],
    retained: Mapping[str, Retained],
) -> Iterator[str]:
    """Yield notes on models that are better than the intact model.

    Args:
        by_task: The metric by which each task counts, of the intact model.
        tables: By label, the metrics of each repeat.
        retained: By label, what the models retain.
    """
    for label, found in retained.items():
        for task, one in found.tasks.items():
            if one is not None and round(one.mean, 3) > 1:
                metric = by_task[task]
                test = difference(
                    Estimate.of([table[task, metric.name] for table in tables[label]]),
                    Estimate.of([metric]),
                    paired=False,
                )
                chance = "" if test.p is None else f", {'more' if test.tells else 'no more'} than chance explains"
                p = "" if test.p is None else f" (p = {test.p:.2g})"
                yield f"{label} retains {one.mean:.1%} of {task}: it is better than the intact model{chance}{p}"

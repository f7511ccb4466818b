"""How models are compared: by which metric, which values are far off, and notes for a reader."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from layerimp.metric import Metric
from layerimp.report.statistics.paired_bootstrap import Estimate, difference
from layerimp.report.statistics.retained import FEW, Key, Retained, why_nothing

FAR = 10.0
"""A perplexity that exceeds the best one by this factor never counts as equal to it, however few the documents."""


def deciding(intact: Mapping[Key, Metric]) -> dict[Key, Key]:
    """Return for each metric the one by which models are compared: for a likelihood, that with the largest unit.

    A likelihood has the same winner in every unit, and a factor is largest in the largest unit.
    """
    widest: dict[str, Key] = {}
    for key, metric in intact.items():
        if metric.likelihood is not None:
            first = widest.setdefault(key[0], key)
            if _units(metric) < _units(intact[first]):
                widest[key[0]] = key
    return {key: key if metric.likelihood is None else widest[key[0]] for key, metric in intact.items()}


def _units(metric: Metric) -> float:
    return 0.0 if metric.likelihood is None else sum(metric.likelihood.units)


def near(values: Mapping[str, float], *, higher: bool) -> frozenset[str]:
    """Return the labels of unbeaten values without those that are far worse than the best, as perplexities may be."""
    if higher or not values:
        return frozenset(values)
    return frozenset(label for label, value in values.items() if value < FAR * min(values.values()) or value <= 0)


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
    by_task: Mapping[str, Metric], label: str, tables: Sequence[Mapping[Key, Metric]], retained: Retained
) -> Iterator[str]:
    """Yield notes on a contender whose models are better than the intact model.

    Args:
        by_task: The metric by which each task counts, of the intact model.
        label: The contender, in words.
        tables: The metrics of each repeat.
        retained: What the models retain.
    """
    for task, share in retained.tasks.items():
        if share is not None and round(share.mean, 3) > 1:
            metric = by_task[task]
            estimate = Estimate.of([table[task, metric.name] for table in tables])
            test = difference(estimate, Estimate.of([metric]), paired=False)
            chance = "" if test.p is None else f", {'more' if test.tells else 'no more'} than chance explains"
            p = "" if test.p is None else f" (p = {test.p:.2g})"
            yield f"{label} retains {share.mean:.1%} of {task}: it is better than the intact model{chance}{p}"

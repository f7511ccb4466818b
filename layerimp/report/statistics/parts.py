"""Metrics and estimates as parts of a document."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from layerimp.report.results.measures import Cost, Measured, Retained, Share
from layerimp.report.statistics.flips import flips
from layerimp.report.statistics.intervals import times_stderr

if TYPE_CHECKING:
    from layerimp.metric import Metric
    from layerimp.report.statistics import retained
    from layerimp.report.statistics.paired_bootstrap import Estimate


def measured(metric: Metric, intact: Metric | None = None) -> Measured:
    """Return a metric without the values of documents, but with the flips if the intact model's is given."""
    low, high = metric.ends(times_stderr(metric.count)) or (None, None)
    return Measured(
        value=metric.value,
        stderr=metric.stderr,
        ends=metric.ends(1.0),
        low=low,
        high=high,
        documents=metric.count,
        higher_is_better=metric.higher_is_better,
        flips=None if intact is None else flips(intact, metric),
    )


def by_task(
    metrics: Iterable[Metric], intact: Mapping[tuple[str, str], Metric] = MappingProxyType({})
) -> dict[str, dict[str, Measured]]:
    """Return metrics by task and name.

    Args:
        metrics: The metrics of a model.
        intact: Those of the intact model by task and name, for the flips; empty if this is the intact model.
    """
    tasks: dict[str, dict[str, Measured]] = {}
    for metric in metrics:
        tasks.setdefault(metric.task, {})[metric.name] = measured(metric, intact.get((metric.task, metric.name)))
    return tasks


def costs(metrics: Iterable[Metric]) -> dict[str, Cost]:
    """Return costs by name."""
    return {metric.name: Cost(value=metric.value, stderr=metric.stderr) for metric in metrics}


def share(estimate: Estimate | None) -> Share | None:
    """Return what models retain, as a mean over the repeats."""
    return None if estimate is None else Share(mean=estimate.mean, stderr=estimate.error)


def shares(estimates: retained.Retained) -> Retained:
    """Return what models retain by task and on average."""
    return Retained(
        tasks={task: share(kept) for task, kept in estimates.tasks.items()},
        likelihood=share(estimates.likelihood),
        accuracy=share(estimates.accuracy),
        worst=share(estimates.worst),
    )

"""Metrics and estimates as the measures of a document, with flips: answers that are others than the intact model's."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from types import MappingProxyType
from typing import TYPE_CHECKING

from layerimp.metric import Key, Metric, mean_and_error
from layerimp.report.results.measures import Cost, Flips, Measured, Retained, Share
from layerimp.report.statistics.retained import at_floor
from layerimp.report.statistics.significance import times_stderr

if TYPE_CHECKING:
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
        floor=metric.floor,
        at_floor=at_floor(metric),
        members=list(metric.members),
        flips=None if intact is None else flips(intact, [metric]),
    )


def by_task(
    metrics: Iterable[Metric], intact: Mapping[Key, Metric] = MappingProxyType({})
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


def flips(intact: Metric, models: Sequence[Metric]) -> Flips | None:
    """Compare the answers of models with those of the intact one, document by document, and average over the models.

    Source: Dutta et al. 2024, arXiv 2407.09141.

    Args:
        intact: A metric of the intact model.
        models: The same metric of each model, such as one for each repeat.

    Returns:
        The flips; None if a document is not simply right or wrong, or the documents are not the same.
    """
    before, known = intact.documents, [model.documents for model in models if model.documents]
    if not before or not known or len(known) < len(models):
        return None
    if any(model.hashes != intact.hashes for model in models) or any(len(after) != len(before) for after in known):
        return None
    if not {*before}.union(*known) <= {0.0, 1.0}:
        return None
    share = error = None
    answers = [model.answers for model in models if model.answers is not None]
    if intact.answers is not None and len(answers) == len(models):
        differ = [fmean(one != was for one in now) for was, *now in zip(intact.answers, *answers, strict=True)]
        share, error = mean_and_error(differ, intact.strata)
    fell, rose = (fmean(sum(map(changed, before, after)) for after in known) for changed in (operator.gt, operator.lt))
    to_wrong, to_right = (fell, rose) if intact.higher_is_better else (rose, fell)
    return Flips(share=share, stderr=error, to_wrong=to_wrong, to_right=to_right)


def flips_by_task(intact: Mapping[Key, Metric], models: Sequence[Mapping[Key, Metric]]) -> dict[str, dict[str, Flips]]:
    """Return the flips of models by task and name of the metric, of all metrics of which they are known."""
    tasks: dict[str, dict[str, Flips]] = {}
    for key, metric in intact.items():
        measured = [model[key] for model in models if key in model]
        if len(measured) == len(models) and (known := flips(metric, measured)) is not None:
            tasks.setdefault(metric.task, {})[metric.name] = known
    return tasks

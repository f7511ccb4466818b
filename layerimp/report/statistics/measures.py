"""Metrics and estimates as the measures of a document, with flips: answers that are others than the intact model's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from types import MappingProxyType
from typing import TYPE_CHECKING

from layerimp.metric import Metric, mean_and_error
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


def flips(intact: Metric, model: Metric) -> Flips | None:
    """Compare the answers of a model with those of the intact one, document by document.

    Source: Dutta et al. 2024, arXiv 2407.09141.

    Args:
        intact: A metric of the intact model.
        model: The same metric of the model.

    Returns:
        The flips; None if a document is not simply right or wrong, or the documents are not the same.
    """
    before, after = intact.documents, model.documents
    if not before or not after or len(before) != len(after) or intact.hashes != model.hashes:
        return None
    if not {*before, *after} <= {0.0, 1.0}:
        return None
    share = error = None
    if intact.answers is not None and model.answers is not None:
        differ = [float(ours != theirs) for ours, theirs in zip(model.answers, intact.answers, strict=True)]
        share, error = mean_and_error(differ, intact.strata)
    return Flips(
        share=share,
        stderr=error,
        to_wrong=sum(was > now for was, now in zip(before, after, strict=True)),
        to_right=sum(was < now for was, now in zip(before, after, strict=True)),
    )


def mean_flips(intact: Metric, repeats: Sequence[Metric]) -> Flips | None:
    """Return the flips of the models of all repeats, on average; None if those of a model are not known."""
    each = [flips(intact, model) for model in repeats]
    known = [one for one in each if one is not None]
    if not known or len(known) < len(each):
        return None
    if len(known) == 1:
        return known[0]
    shares = [one.share for one in known if one.share is not None]
    return Flips(
        share=fmean(shares) if len(shares) == len(known) else None,
        stderr=None,
        to_wrong=fmean(one.to_wrong for one in known),
        to_right=fmean(one.to_right for one in known),
    )

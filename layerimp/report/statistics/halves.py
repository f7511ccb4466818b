"""Divides the documents of each task into two halves: one for a search, and one that confirms the result.

Every document is measured in any case, so the figures of both halves come from the same evaluation.
"""

from __future__ import annotations

import math
import statistics
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from layerimp.errors import TaskError
from layerimp.metric import Likelihood, Metric
from layerimp.report.statistics.paired_bootstrap import Estimate
from layerimp.report.statistics.retained import counting, summed_up, why_nothing

LEAST = 2
"""The least number of documents in a half for which an error can be estimated."""


@dataclass(frozen=True)
class Halves:
    """The metrics of one model on the two halves.

    Attributes:
        search: The metrics on the documents that a search uses.
        confirmation: The metrics on all other documents.
    """

    search: Sequence[Metric]
    confirmation: Sequence[Metric]

    @classmethod
    def of(cls, metrics: Iterable[Metric]) -> Halves:
        """Divide metrics into halves, without metrics that are not known document by document."""
        parted = [(_part(one, confirms=False), _part(one, confirms=True)) for one in metrics if splits(one)]
        return cls([search for search, _ in parted], [confirmation for _, confirmation in parted])


def splits(metric: Metric) -> bool:
    """Whether a metric can be computed for a part of its documents."""
    return metric.likelihood is not None or metric.documents is not None


def confirming(metric: Metric) -> list[bool]:
    """Tell for each document of a metric whether it is in the confirming half.

    The lowest bit of the document's hash decides. So equal documents are in the same half, and a document stays in its
    half if there are more documents. Without hashes, the lowest bit of the document's number decides.
    """
    hashes = metric.hashes or [zlib.crc32(str(number).encode()) for number in range(metric.count or 0)]
    return [bool(each % 2) for each in hashes]


def _part(metric: Metric, *, confirms: bool) -> Metric:
    """Compute a metric on one half of its documents."""
    chosen = [number for number, each in enumerate(confirming(metric)) if each is confirms]

    def of(values: Sequence[float]) -> tuple[float, ...]:
        return tuple(values[number] for number in chosen)

    hashes = None if metric.hashes is None else tuple(metric.hashes[number] for number in chosen)
    if (whole := metric.likelihood) is not None:
        unigram = None if whole.unigram is None else of(whole.unigram)
        part = Likelihood(of(whole.totals), of(whole.units), unigram, whole.bits)
        value = part.metric(part.loss) if sum(part.units) else math.nan
        slope = 1 / math.log(2) if part.bits else value
        error = None if not sum(part.units) or part.stderr is None else slope * part.stderr
        return replace(metric, value=value, stderr=error, likelihood=part, hashes=hashes)
    values = of(metric.documents or ())
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) >= LEAST else None
    mean = math.fsum(values) / len(values) if values else math.nan
    return replace(metric, value=mean, stderr=error, documents=values, hashes=hashes)


def check_halves(intact: Sequence[Metric]) -> None:
    """Refuse tasks of which nothing can be kept, or for which a result cannot be confirmed.

    Args:
        intact: The metrics of the intact model, on all documents.

    Raises:
        TaskError: a task counts by a metric that is not known document by document, a task has too few documents in a
            half, or the intact model does not know enough of a task, on all documents or on one half.
    """
    by_task = counting(intact)
    for task, metric in by_task.items():
        if reason := why_nothing(metric):
            raise TaskError(f"{reason}; leave the task out, as no share of nothing can be kept")
        if not splits(metric):
            raise TaskError(
                f"{task}: {metric.name} is not known document by document, so that no documents can be held back to "
                "confirm what is kept; leave the task out"
            )
        for name, confirms in (("searches", False), ("confirms", True)):
            part = _part(metric, confirms=confirms)
            if (count := part.count or 0) < LEAST:
                raise TaskError(f"{task}: the half that {name} has {count} of {metric.count} documents; take more")
            if reason := why_nothing(part):
                raise TaskError(
                    f"{reason} on the {count} documents of the half that {name}; take more, or leave it out"
                )


def kept(intact: Sequence[Metric], pruned: Sequence[Metric]) -> Estimate | None:
    """Return what a model retains: the lower of the means over likelihoods and over all other metrics.

    None if a task was not measured.

    Args:
        intact: The metrics of the intact model.
        pruned: The metrics of the pruned model, on the same documents.
    """
    table = {(metric.task, metric.name): metric for metric in pruned}
    return summed_up(counting(intact), [table]).worst

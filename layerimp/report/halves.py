"""The documents of each task in two halves: one that a search chooses by, and one that confirms what was found.

Every document is measured anyway, so that the figures of both halves come from the same evaluation.
"""

from __future__ import annotations

import math
import statistics
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from layerimp.errors import TaskError
from layerimp.evaluator import Likelihood, Metric
from layerimp.report.paired_bootstrap import Estimate
from layerimp.report.retained import counting, summed_up, why_nothing

LEAST = 2
"""Documents in a half, below which nothing is known of the error."""


@dataclass(frozen=True)
class Halves:
    """What was measured of one model.

    Attributes:
        search: On the documents that a search chooses by.
        confirmation: On all others.
    """

    search: Sequence[Metric]
    confirmation: Sequence[Metric]

    @classmethod
    def of(cls, metrics: Iterable[Metric]) -> Halves:
        """Metrics, parted; without those that are not known document by document."""
        parted = [(_part(one, confirms=False), _part(one, confirms=True)) for one in metrics if splits(one)]
        return cls([search for search, _ in parted], [confirmation for _, confirmation in parted])


def splits(metric: Metric) -> bool:
    """Whether a metric can be told of a part of its documents."""
    return metric.likelihood is not None or metric.documents is not None


def confirming(metric: Metric) -> list[bool]:
    """Whether each document of a metric is in the half that confirms.

    The lowest bit of its hash says so: equal documents are in the same half, and none changes its half where there are
    more of them. Where there are no hashes, that of its number takes their place.
    """
    hashes = metric.hashes or [zlib.crc32(str(number).encode()) for number in range(metric.count or 0)]
    return [bool(each % 2) for each in hashes]


def _part(metric: Metric, *, confirms: bool) -> Metric:
    """A metric of one half of its documents."""
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
    """Refuse tasks of which nothing can be kept, or nothing can be confirmed.

    Args:
        intact: The metrics of the intact model, on all documents.

    Raises:
        TaskError: a task counts by a metric that is not known document by document, has too few documents in a half, or
            the intact model does not know enough of it, on all documents or on one half.
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
    """What a model retains: the lower of the means over the likelihoods and over all else.

    None where a task was not measured.

    Args:
        intact: The metrics of the intact model.
        pruned: Those of the pruned one, on the same documents.
    """
    table = {(metric.task, metric.name): metric for metric in pruned}
    return summed_up(counting(intact), [table]).worst

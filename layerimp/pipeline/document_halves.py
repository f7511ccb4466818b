"""Divides the documents of each task into two halves: one for a search, and one that confirms the result.

Every document is measured in any case, so the figures of both halves come from the same evaluation.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

from layerimp.errors import TaskError
from layerimp.metric import Likelihood, Metric, Stratum, by_key, mean_and_error
from layerimp.report.paired_bootstrap import Estimate
from layerimp.report.retained import counting, summed_up, why_nothing
from layerimp.report.statistics import parts_at_floor

LEAST = 2
"""The least number of documents in a half for which an error can be estimated."""


@dataclass(frozen=True)
class DocumentHalves:
    """The metrics of one model on the two halves.

    Attributes:
        search: The metrics on the documents that a search uses.
        confirmation: The metrics on all other documents.
    """

    search: Sequence[Metric]
    confirmation: Sequence[Metric]

    @classmethod
    def of(cls, metrics: Iterable[Metric]) -> DocumentHalves:
        """Divide metrics into halves, without metrics that are not known document by document."""
        known = [metric for metric in metrics if splits(metric)]
        even = averaged(known)

        def half(*, confirms: bool) -> list[Metric]:
            return [_part(metric, confirms=confirms, evenly=metric.task in even) for metric in known]

        return cls(half(confirms=False), half(confirms=True))


def splits(metric: Metric) -> bool:
    """Whether a metric can be computed for a part of its documents."""
    return metric.likelihood is not None or metric.documents is not None


def averaged(metrics: Iterable[Metric]) -> frozenset[str]:
    """Return the averages that have strata, and the tasks in them."""
    return frozenset(task for metric in metrics if metric.strata for task in (metric.task, *metric.members))


def confirming(metric: Metric, *, evenly: bool = False) -> list[bool]:
    """Tell for each document of a metric whether it is in the confirming half.

    The lowest bit of the document's hash decides. So equal documents are in the same half, and a document stays in its
    half if there are more documents. Without hashes, the hash of the document's number decides.

    Args:
        metric: The metric, whose documents are known.
        evenly: Whether the documents of each stratum are divided evenly, however few there are: every second of them
            in the order of the hashes. Equal documents are in the same half, but more documents may change the halves.
    """
    halves: list[bool] = []
    for count in [stratum.documents for stratum in metric.strata] or [metric.count or 0]:
        own = metric.hashes and metric.hashes[len(halves) : len(halves) + count]
        hashes = own or [zlib.crc32(str(number).encode()) for number in range(count)]
        places = {each: place if evenly else each for place, each in enumerate(sorted({*hashes}))}
        halves += (bool(places[each] % 2) for each in hashes)
    return halves


def _part(metric: Metric, *, confirms: bool, evenly: bool) -> Metric:
    """Compute a metric on one half of its documents."""
    division = confirming(metric, evenly=evenly)
    chosen = [number for number, each in enumerate(division) if each is confirms]

    def of(values: Sequence[float]) -> tuple[float, ...]:
        return tuple(values[number] for number in chosen)

    hashes, answers = (
        None if numbers is None else tuple(numbers[number] for number in chosen)
        for numbers in (metric.hashes, metric.answers)
    )
    if (whole := metric.likelihood) is not None:
        unigram = None if whole.unigram is None else of(whole.unigram)
        part = Likelihood(of(whole.totals), of(whole.units), unigram, whole.bits)
        value = part.metric(part.loss) if sum(part.units) else math.nan
        slope = 1 / math.log(2) if part.bits else value
        error = None if not sum(part.units) or part.stderr is None else slope * part.stderr
        return replace(metric, value=value, stderr=error, likelihood=part, hashes=hashes)
    values, strata = of(metric.documents or ()), _strata(metric, [each is confirms for each in division])
    mean, error = mean_and_error(values, strata)
    half = replace(metric, value=mean, stderr=error, documents=values, hashes=hashes, answers=answers, strata=strata)
    # Both halves count what the model knows by all documents: otherwise they would keep shares of different tasks.
    return replace(half, unknown=tuple(parts_at_floor(metric)))


def _strata(metric: Metric, chosen: Sequence[bool]) -> tuple[Stratum, ...]:
    """Return the strata of the chosen documents, each with its weight."""
    starts = [0, *accumulate(stratum.documents for stratum in metric.strata)]
    counts = [sum(chosen[start:end]) for start, end in pairwise(starts)]
    return tuple(whole._replace(documents=count) for count, whole in zip(counts, metric.strata, strict=True))


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
            part = _part(metric, confirms=confirms, evenly=bool(metric.strata))
            if (count := part.count or 0) < LEAST:
                raise TaskError(f"{task}: the half that {name} has {count} of {metric.count} documents; take more")
            if any(stratum.documents < LEAST for stratum in part.strata):
                raise TaskError(
                    f"{task}: of one of its tasks, the half that {name} has less than {LEAST} documents; take "
                    f"{2 * LEAST} or more of each"
                )
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
    return summed_up(counting(intact), [by_key(pruned)]).worst

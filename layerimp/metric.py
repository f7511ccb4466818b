"""A metric: one measured number, and what is needed to compare it with that of another model."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, islice
from typing import NamedTuple

Key = tuple[str, str]
"""A task and the name of one of its metrics."""


def clustered_stderr(totals: Sequence[float], units: Sequence[float]) -> float | None:
    """Return the standard error of sum `totals` / sum `units` over independent clusters (Cochran 1977, 6.3).

    Args:
        totals: The sum over each cluster, such as a document [cluster].
        units: What each sum is divided by, such as its number of tokens [cluster].

    Returns:
        The error; None for a single cluster, and if a total is infinite.
    """
    count = len(totals)
    if count < 2 or not all(map(math.isfinite, totals)):
        return None
    mean = sum(totals) / sum(units)
    left = (total - mean * own for total, own in zip(totals, units, strict=True))
    return math.sqrt(count / (count - 1) * sum(each**2 for each in left)) / sum(units)


@dataclass(frozen=True)
class Likelihood:
    """The log-likelihood of a task's documents, which a perplexity expresses in some unit.

    All metrics of a task with a likelihood express the same quantity in different units, so that the task counts once.

    Attributes:
        totals: The log-likelihood of each document, in nats [document].
        units: How many units each document has, such as words, bytes or tokens [document].
        unigram: The log-likelihood of each document under a model that only knows how frequent the model's own tokens
            are in the other documents, in nats [document]: what knowing nothing of the context costs (see `unigram`).
            None if not known.
        bits: Whether the metric is the loss in bits per unit rather than a perplexity.
    """

    totals: tuple[float, ...]
    units: tuple[float, ...]
    unigram: tuple[float, ...] | None = None
    bits: bool = False

    @cached_property
    def loss(self) -> float:
        """The loss in nats per unit."""
        return -sum(self.totals) / sum(self.units)

    @property
    def stderr(self) -> float | None:
        """The standard error of the loss over the documents, weighted by their units; see `clustered_stderr`."""
        return clustered_stderr(self.totals, self.units)

    def metric(self, loss: float) -> float:
        """Return the value of the metric at a loss in nats per unit."""
        if self.bits:
            return loss / math.log(2)
        try:
            return math.exp(loss)
        except OverflowError:
            return math.inf


class Stratum(NamedTuple):
    """A part of an average's documents, such as those of one task.

    Attributes:
        documents: The number of documents, at least 1.
        weight: The weight of their mean in the average; the weights of all strata add up to 1.
        part: Which part of the average they belong to, such as a task: a model may know one part and nothing of
            another. Empty if the documents are all of one kind.
        floor: The value of that part for a model that knows nothing; None if not known.
    """

    documents: int
    weight: float
    part: str = ""
    floor: float | None = None


def mean_and_error(values: Sequence[float], strata: Sequence[Stratum] = ()) -> tuple[float, float | None]:
    """Return the mean of values, and its standard error.

    Args:
        values: The value of each document.
        strata: The parts of the documents, in their order, whose means are averaged by weight; empty for one.

    Returns:
        The mean, NaN if there is nothing to average; and the error, None if a part has a single document.
    """
    parts = strata or [Stratum(len(values), 1.0)]
    total, square, known, start = 0.0, 0.0, True, 0
    for count, weight, *_ in parts:
        own = values[start : start + count]
        start += count
        if not own:
            return math.nan, None
        total += weight * (math.fsum(own) / count)
        known = known and count > 1
        square += weight**2 * statistics.variance(own) / count if known else 0.0
    return total, math.sqrt(square) if known else None


@dataclass(frozen=True)
class Metric:
    """One measured number, and what is needed to compare it fairly with that of another model.

    Optional fields make comparisons more precise. Without `documents` or `likelihood`, two models are compared as if
    measured on different documents; without a `floor`, right answers by chance count as retained.

    Attributes:
        task: The task that was measured.
        name: The metric's name, without a filter suffix.
        value: The number.
        stderr: The standard error over the documents; None if there is none.
        higher_is_better: Whether a higher value is better.
        floor: The value of a model that knows nothing, such as 0.5 for the accuracy of yes or no.
        documents: The value of each document [document], in the same order for all models, if `value` is their mean, or
            the weighted mean of those of the strata.
        likelihood: For a perplexity, the log-likelihoods that it is computed from.
        members: For the average of several tasks that are also measured, the names of these tasks, which then count
            only through the average.
        hashes: A whole number below 2^53 for each document [document], made from its content, so that equal documents
            have equal numbers. It decides whether a document is used by a search or confirms the result. None if
            documents are identified only by their position.
        answers: The model's answer to each document [document] as a whole number below 2^53, such as the number of the
            option that it chose: equal numbers are equal answers. None if answers are not known.
        strata: For the average of several tasks, the tasks' documents, in the order of `documents`: chance then draws
            documents within a task, and not tasks. Empty if all documents are of one kind.
        unknown: The parts of an average of which the model knows nothing, where these are some of the documents by
            which that was decided; None if all are here.
    """

    task: str
    name: str
    value: float
    stderr: float | None = None
    higher_is_better: bool = True
    floor: float | None = None
    documents: tuple[float, ...] | None = None
    likelihood: Likelihood | None = None
    members: tuple[str, ...] = ()
    hashes: tuple[int, ...] | None = None
    answers: tuple[int, ...] | None = None
    strata: tuple[Stratum, ...] = ()
    unknown: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", float(self.value))
        if self.stderr is not None:
            object.__setattr__(self, "stderr", float(self.stderr))
        if self.strata and sum(stratum.documents for stratum in self.strata) != len(self.documents or ()):
            raise ValueError(f"{self.name} of {self.task}: the strata have other documents than the metric")

    @property
    def count(self) -> int | None:
        """The number of documents that were measured; None if not known."""
        values = self.documents if self.likelihood is None else self.likelihood.totals
        return None if values is None else len(values)

    @cached_property
    def parts(self) -> list[Metric]:
        """The parts of an average as metrics of their own; none unless it names them."""
        if not any(stratum.part for stratum in self.strata):
            return []
        parts, values = [], iter(self.documents or ())
        for (name, floor), run in groupby(self.strata, key=lambda stratum: (stratum.part, stratum.floor)):
            own = list(run)
            weight = math.fsum(stratum.weight for stratum in own)
            strata = tuple(Stratum(stratum.documents, stratum.weight / weight) for stratum in own)
            documents = tuple(islice(values, sum(stratum.documents for stratum in own)))
            value, error = mean_and_error(documents, strata)
            parts.append(Metric(name, self.name, value, error, floor=floor, documents=documents, strata=strata))
        return parts

    def ends(self, times: float) -> tuple[float, float] | None:
        """Return the ends of an interval of `times` standard errors to either side; for a perplexity, of its loss.

        None if the error is not known.
        """
        likelihood = self.likelihood
        value, error = (self.value, self.stderr) if likelihood is None else (likelihood.loss, likelihood.stderr)
        if error is None or not math.isfinite(error):
            return None
        ends = value - times * error, value + times * error
        return ends if likelihood is None else (likelihood.metric(ends[0]), likelihood.metric(ends[1]))


def by_key(metrics: Iterable[Metric]) -> dict[Key, Metric]:
    """Return metrics by task and name."""
    return {(metric.task, metric.name): metric for metric in metrics}


def unigram(documents: Sequence[Sequence[int]], vocabulary: int) -> tuple[float, ...]:
    """Return the log-likelihood of each document under a model of token frequencies, in nats [document].

    A token's probability is a mixture of its share in all *other* documents and of 1 / `vocabulary`. All documents have
    the same mixture weight, which minimises their total loss, so that nothing has to be chosen.

    Args:
        documents: The tokens of each document that the model predicts.
        vocabulary: The number of possible tokens.
    """
    import numpy as np
    from scipy.optimize import minimize_scalar

    counts = [Counter(tokens) for tokens in documents]
    copies = Counter(map(tuple, documents))  # copies of a document do not count as other documents
    total: Counter[int] = Counter()
    for each in counts:
        total.update(each)
    times, shares = [], []
    for tokens, own in zip(documents, counts, strict=True):
        many = copies[tuple(tokens)]
        others = np.array([total[token] - many * often for token, often in own.items()], dtype=np.float64)
        times.append(np.array(list(own.values()), dtype=np.float64))
        shares.append(others / max(total.total() - many * len(tokens), 1))

    def log_likelihoods(uniform: float) -> list[float]:
        return [
            float(np.sum(often * np.log((1 - uniform) * share + uniform / vocabulary)))
            for often, share in zip(times, shares, strict=True)
        ]

    # The loss is convex in the weight, and infinite at 0 if a document has a token that no other document has.
    best = minimize_scalar(lambda uniform: -sum(log_likelihoods(uniform)), bounds=(0.0, 1.0), method="bounded").x
    return tuple(log_likelihoods(float(best)))

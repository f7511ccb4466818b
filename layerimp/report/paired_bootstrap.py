"""Paired statistics of models on the same documents: figures that are resampled together, and their differences."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import stats

from layerimp.report.results.measures import LEVEL, Difference
from layerimp.report.statistics import corrected, with_errors

if TYPE_CHECKING:
    from layerimp.metric import Metric, Stratum

Array = npt.NDArray[np.float64]

DRAWS = 2000
"""The number of resamples of a task's documents."""
_AT_ONCE = 100  # resamples that are multiplied at the same time; bounds the memory for many documents


@dataclass(frozen=True)
class Estimate:
    """A figure of one model, or of the models from the repeats of a scorer.

    Attributes:
        points: The figure [repeat].
        draws: The figure on resamples of the documents, which are the same for all models [draw, repeat]; None if the
            documents' values are not known.
        documents: The number of documents; None if not known.
        strata: How many strata the documents are drawn in.
        stderr: The standard error over the documents, if there are no draws; None if not known.
        right: For an accuracy, whether each document is answered correctly [document, repeat]; else None.
    """

    points: Array
    draws: Array | None = None
    documents: int | None = None
    stderr: float | None = None
    right: Array | None = None
    strata: int = 1

    @classmethod
    def of(cls, metrics: Sequence[Metric]) -> Estimate:
        """Make an estimate of a metric by repeat, on the scale for comparisons: a perplexity as the loss per unit.

        The loss is in nats, or in bits if the metric itself is.
        """
        first = metrics[0]
        likelihoods = [metric.likelihood for metric in metrics]
        alike = all(metric.count == first.count for metric in metrics)
        if alike and all(likelihood is not None and math.isfinite(likelihood.loss) for likelihood in likelihoods):
            known = [likelihood for likelihood in likelihoods if likelihood is not None]
            nat = 1 / math.log(2) if known[0].bits else 1.0
            points = nat * np.array([likelihood.loss for likelihood in known])
            units = np.array(known[0].units)
            losses = -nat * resampled(first.task, np.array([likelihood.totals for likelihood in known]).T)
            weights = resampled(first.task, units[:, None])
            # A resample with only empty documents carries no information.
            return cls(points, np.divide(losses, weights, out=losses * 0 + points, where=weights > 0), len(units))
        points = np.array([metric.value for metric in metrics])
        if not drawable(metrics):
            errors = [metric.stderr for metric in metrics if metric.stderr is not None]
            known_errors = len(errors) == len(metrics)
            return cls(points, stderr=sum(errors) / len(errors) if known_errors else None)
        values = np.array([metric.documents for metric in metrics], dtype=np.float64).T
        scale = scales(first)
        draws = resampled(first.task, values * scale, first.strata) / len(values)
        counted = np.allclose(scale, 1) and np.isin(values, (0, 1)).all()
        return cls(points, draws, len(values), right=values if counted else None, strata=len(first.strata) or 1)

    @cached_property
    def distinct(self) -> Estimate:
        """The estimate with a single repeat if all repeats are equal, as for a scorer that always removes the same."""
        columns = [values for values in (self.points[None], self.draws, self.right) if values is not None]
        if any((values != values[:, :1]).any() for values in columns):
            return self
        draws, right = (None if values is None else values[:, :1] for values in (self.draws, self.right))
        return replace(self, points=self.points[:1], draws=draws, right=right)

    @cached_property
    def mean(self) -> float:
        """The mean over the repeats."""
        return float(self.points.sum() / len(self.points))

    @cached_property
    def error(self) -> float | None:
        """The standard error of the mean over the documents, which the repeats share; None if not known or infinite."""
        if not math.isfinite(self.mean):
            return None
        if self.draws is None or self.documents is None:
            return self.stderr
        return _spread(self.draws.mean(axis=1), self.documents) if self.documents > 1 else None


def drawable(metrics: Sequence[Metric]) -> bool:
    """Whether metrics can be resampled together: all have values of the same documents, two or more in each stratum."""
    first = metrics[0]
    alike = all(m.documents is not None and m.count == first.count and m.strata == first.strata for m in metrics)
    return alike and (not first.strata or min(stratum.documents for stratum in first.strata) > 1)


def scales(metric: Metric) -> Array:
    """Return by what the values of documents are multiplied, so that their mean is the metric's value [document, 1]."""
    count = metric.count or 0
    if not metric.strata:
        return np.ones((count, 1))
    each = [count * stratum.weight / stratum.documents for stratum in metric.strata]
    return np.repeat(each, [stratum.documents for stratum in metric.strata])[:, None]


@lru_cache(maxsize=8)
def _weights(task: str, counts: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Return how often each document of a task is in each resample [draw, document]; the same in every process.

    Args:
        task: The task.
        counts: The number of documents of each stratum, within which they are drawn.
    """
    rng = np.random.default_rng(zlib.crc32(task.encode()))
    parts = []
    for _ in range(0, DRAWS, _AT_ONCE):
        for count in counts:
            chosen = rng.integers(count, size=(_AT_ONCE, count)) + count * np.arange(_AT_ONCE)[:, None]
            often = np.bincount(chosen.ravel(), minlength=count * _AT_ONCE)
            parts.append(often.astype(np.uint8).reshape(_AT_ONCE, count))
    by_draw = [np.concatenate(parts[n : n + len(counts)], axis=1) for n in range(0, len(parts), len(counts))]
    return np.concatenate(by_draw)


def resampled(task: str, values: Array, strata: Sequence[Stratum] = ()) -> Array:
    """Return sums over resamples of a task's documents. The resamples are the same for all models.

    The spread of a resample over n documents is too small by a factor of sqrt((n - 1) / n). `_spread` corrects that for
    all documents together; in strata it is corrected here for the documents of each (Rao and Wu 1988).

    Args:
        task: The task.
        values: The values of the documents [document, column].
        strata: The parts of the documents, each with at least two, within which they are drawn; empty for one.

    Returns:
        The sums [draw, column].
    """
    counts, rest = tuple(stratum.documents for stratum in strata) or (len(values),), np.zeros(values.shape[1])
    if strata:
        whole = len(values) / (len(values) - 1)
        wider = np.repeat([math.sqrt(count / (count - 1) / whole) for count in counts], counts)[:, None]
        values, rest = values * wider, (values * (1 - wider)).sum(axis=0)
    weights = _weights(task, counts)
    parts = [weights[start : start + _AT_ONCE] @ values for start in range(0, DRAWS, _AT_ONCE)]
    return np.concatenate(parts) + rest


def difference(one: Estimate, other: Estimate, *, paired: bool) -> Difference:
    """Return how much greater the mean of `one` is than that of `other`.

    There are two sources of chance, each treated by Student's t: the draws of calibration text, and the documents, on
    which the models are compared one by one. For accuracies of two single models, McNemar's exact test is used. Equal
    repeats count as one.

    Args:
        one: A figure, by repeat.
        other: The same figure of other models on the same documents.
        paired: Whether the repeats of both have the same draws of calibration text.
    """
    mean = one.mean - other.mean
    if not math.isfinite(mean):
        # A model that is broken in every repeat is worse than one that is broken in none; otherwise nothing is known.
        whole = [np.isfinite(each.points) for each in (one, other)]
        decided = any(each.all() for each in whole) and any(not each.any() for each in whole)
        return Difference(mean=mean, p=0.0 if decided else None)
    one, other = one.distinct, other.distinct
    single = len(one.points) == len(other.points) == 1
    errors = list(_between(one.points, other.points, paired=paired))
    least = 0.0
    if one.draws is not None and other.draws is not None and one.documents == other.documents:
        if single and one.right is not None and other.right is not None:
            return _mcnemar(one.right[:, 0], other.right[:, 0])
        count = one.documents or 0
        if count > 1:
            moved = one.draws.mean(axis=1) - other.draws.mean(axis=1)
            errors.append((_spread(moved, count), float(count - one.strata)))
            least = 2.0 ** (1 - count) if single else 0.0
    elif one.error is not None and other.error is not None:
        errors.append((math.hypot(one.error, other.error), math.inf))
    return with_errors(mean, errors, least)


def _between(one: Array, other: Array, *, paired: bool) -> Iterator[tuple[float, float]]:
    """Yield the standard error of a difference due to the draws of calibration text, and the degrees of freedom.

    It is paired by repeat if the repeats read the same text, and computed by Welch's test otherwise. Nothing is yielded
    for single values.
    """
    groups = [one - other] if paired and len(one) == len(other) else [one, other]
    parts = [(float(v.var(ddof=1)) / len(v), len(v) - 1.0) for v in groups if len(v) > 1]
    total = sum(variance for variance, _ in parts)
    if parts:
        spread = sum(variance**2 / freedom for variance, freedom in parts)
        yield math.sqrt(total), total**2 / spread if spread else 1.0


def _spread(draws: Array, documents: int) -> float:
    """Return the standard error over documents; the resamples' own is too small by a factor of sqrt((n - 1) / n)."""
    if float(np.ptp(draws)) <= 1e-12 * max(1.0, float(np.abs(draws).max())):
        return 0.0  # sums of equal values are rounded
    return float(draws.std(ddof=1)) * math.sqrt(documents / (documents - 1))


def _mcnemar(one: Array, other: Array) -> Difference:
    """Return how much more often `one` is correct, by McNemar's exact test on documents that only one gets right.

    The interval is Wald's, with one more document for either side (Bonett and Price 2012, doi:10.3102/1076998611411915;
    recommended by Fagerland et al. 2014, doi:10.1002/sim.6148). It also holds the chance in how many documents tell the
    models apart. The test is the stricter: what is significant has an interval without 0.
    """
    won, lost, count = int((one > other).sum()), int((one < other).sum()), len(one) + 2
    centre = (won - lost) / count
    half = stats.norm.isf((1 - LEVEL) / 2) * math.sqrt(((won + lost + 2) / count - centre**2) / count)
    return Difference(
        mean=(won - lost) / len(one),
        low=max(centre - half, -1.0),
        high=min(centre + half, 1.0),
        p=float(stats.binomtest(won, won + lost).pvalue) if won + lost else 1.0,
    )


def unbeaten(
    estimates: Mapping[str, Estimate],
    *,
    higher: bool,
    compare: Callable[[str, str], Difference],
) -> frozenset[str]:
    """Return the labels that no other beats, with Holm's correction over all pairs: the best, and ties with it.

    Empty if there is nothing to compare, or if an error is not known.

    Args:
        estimates: The figures of models on the same documents, by label.
        higher: Whether a higher figure is better.
        compare: Returns how much greater one label's figure is than another's.
    """
    known = {label: estimate for label, estimate in estimates.items() if math.isfinite(estimate.mean)}
    if len(estimates) < 2 or not known:
        return frozenset()
    pairs = {(a, b): compare(a, b) for a, b in combinations(known, 2)}
    if any(contrast.p is None for contrast in pairs.values()):
        return frozenset()
    beaten = {
        pair[0] if (contrast.mean > 0) is not higher else pair[1]
        for pair, contrast in corrected(pairs).items()
        if contrast.tells and contrast.mean != 0
    }
    return frozenset(known) - beaten

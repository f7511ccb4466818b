"""Means with confidence intervals, p-values and their correction, agreement of rankings, and metrics as measures."""

from __future__ import annotations

import math
import operator
from collections.abc import Hashable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import combinations
from statistics import NormalDist, fmean
from types import MappingProxyType
from typing import TypeVar

import numpy as np
from scipy.optimize import brentq
from scipy.special import stdtrit

from layerimp.metric import Key, Metric, mean_and_error
from layerimp.report.results.measures import LEVEL, AveragedPart, Cost, Difference, Flips, Interval, Measured
from layerimp.report.results.models import Stability

Name = TypeVar("Name", bound=Hashable)

# Quantiles of Student's t are those of scipy.special: scipy.stats takes hundreds of times longer for the same numbers.


def interval(values: Sequence[float]) -> Interval:
    """Return the mean of independent values, and its interval by Student's t."""
    count = len(values)
    if count > 1 and min(values) == max(values) and math.isfinite(values[0]):
        # Exact, while sums of equal values are rounded.
        return Interval(mean=values[0], low=values[0], high=values[0], count=count)
    mean = sum(values) / count  # not fsum, which rejects infinities
    if count < 2 or not all(map(math.isfinite, values)):
        return Interval(mean=mean, count=count)
    half = times_stderr(count) * float(np.std(values, ddof=1)) / math.sqrt(count)
    return Interval(mean=mean, low=mean - half, high=mean + half, count=count)


def times_stderr(count: int | None, strata: int = 1) -> float:
    """Return half the width of a 95 % interval in standard errors, by Student's t if the count is known.

    A mean over strata has as many degrees of freedom fewer.
    """
    freedom = math.inf if count is None or count <= strata else count - strata
    return float(stdtrit(freedom, (1 + LEVEL) / 2))


def with_errors(mean: float, errors: Sequence[tuple[float, float]], least: float = 0.0) -> Difference:
    """Make a difference with independent errors: each widens the interval by its own t, and the squares add up.

    The interval is wider than that of Welch and Satterthwaite, which is too narrow if a few repeats happen to agree.

    Args:
        mean: The difference.
        errors: The standard errors with their degrees of freedom; empty if the error is not known.
        least: The smallest p-value that the number of documents allows.
    """
    if not errors:
        return Difference(mean=mean)
    known = [(error, freedom) for error, freedom in errors if error > 0]
    if not known:
        return Difference(mean=mean, low=mean, high=mean, p=1.0 if mean == 0 else least)

    def half(log_p: float) -> float:
        return math.hypot(*(-error * float(stdtrit(freedom, math.exp(log_p) / 2)) for error, freedom in known))

    width, p = half(math.log(1 - LEVEL)), 0.0  # 0 where it is too small for floating point
    # The end of the search is no farther off than necessary: far out, some quantiles of t are NaN.
    lowest = next((end for end in (-1.0, -4.0, -16.0, -64.0, -256.0, -700.0) if half(end) >= abs(mean)), None)
    if lowest is not None:
        p = math.exp(float(brentq(lambda log_p: half(log_p) - abs(mean), lowest, 0.0)))
    return Difference(mean=mean, low=mean - width, high=mean + width, p=max(p, least))


def corrected(contrasts: Mapping[Name, Difference]) -> dict[Name, Difference]:
    """Return the differences of a family, with known p-values corrected for the number of comparisons."""
    values = holm({name: contrast.p for name, contrast in contrasts.items() if contrast.p is not None})
    return {name: contrast.model_copy(update={"p": values.get(name)}) for name, contrast in contrasts.items()}


def holm(values: Mapping[Name, float]) -> dict[Name, float]:
    """Return the p-values of a family of comparisons, corrected for their number (Holm 1979)."""
    corrected: dict[Name, float] = {}
    least = 0.0
    for place, name in enumerate(sorted(values, key=lambda name: values[name])):
        least = max(least, min(1.0, (len(values) - place) * values[name]))
        corrected[name] = least
    return corrected


def jaccard(one: AbstractSet[object], other: AbstractSet[object]) -> float:
    """Return the Jaccard index of two sets: 1 for equal sets, 0 for disjoint sets."""
    return len(one & other) / len(one | other) if one | other else 1.0


def stability(sets: Sequence[AbstractSet[object]]) -> Stability | None:
    """Return the stability of the removed sets of several repeats; None for a single repeat."""
    pairs = list(combinations(sets, 2))
    if not pairs:
        return None
    index = sum(jaccard(*pair) for pair in pairs) / len(pairs)
    return Stability(jaccard=index, same=sum(a == b for a, b in pairs) / len(pairs))


def tau(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Return Kendall's tau-b of two rankings of the same blocks; None if one of them gives all the same rank."""
    orders = [np.sign(np.subtract.outer(ranking, ranking)) for ranking in (one, other)]  # of each pair of blocks
    untied = math.prod(float(np.abs(order).sum()) for order in orders)
    return float((orders[0] * orders[1]).sum()) / math.sqrt(untied) if untied else None


def mean_tau(ones: Sequence[Sequence[float]], others: Sequence[Sequence[float]]) -> float | None:
    """Return the mean of Kendall's tau over all pairs of a ranking from `ones` and one from `others`."""
    return _mean(tau(one, other) for one in ones for other in others)


def self_tau(rankings: Sequence[Sequence[float]]) -> float | None:
    """Return the mean of Kendall's tau over all pairs of repeats; None for a single repeat."""
    return _mean(tau(one, other) for one, other in combinations(rankings, 2))


def _mean(taus: Iterable[float | None]) -> float | None:
    known = [kendall for kendall in taus if kendall is not None]
    return sum(known) / len(known) if known else None


NOISE = 2.0
"""The least distance of the intact model from the floor, in standard errors, for which a retained share makes sense."""


def noise(parts: int) -> float:
    """Return the same for each of so many parts of an average, so that no part passes by chance more often than a task.

    This is Bonferroni's correction: of nine parts at the floor, one in six averages would have one beyond `NOISE`.
    """
    return -NormalDist().inv_cdf(NormalDist().cdf(-NOISE) / parts)


def at_floor(metric: Metric, times: float = NOISE) -> bool:
    """Whether a model is less than so many standard errors better than one that knows nothing; no if not known.

    For an average with parts, whether it knows nothing of any part; see `parts_at_floor`.
    """
    if parts := metric.parts:
        return len(parts_at_floor(metric)) == len(parts)
    if (likelihood := metric.likelihood) is not None:
        if likelihood.unigram is None or len(likelihood.totals) < 2:
            return False
        gains = np.array(likelihood.totals) - np.array(likelihood.unigram)
        if not np.isfinite(gains).all():
            return True
        return not (gains.sum() > 0 and gains.sum() >= times * math.sqrt(len(gains)) * gains.std(ddof=1))
    if not metric.higher_is_better or metric.floor is None or metric.count == 1:
        return False
    gain, error = metric.value - metric.floor, metric.stderr or 0.0
    if metric.documents and set(metric.documents) <= {0.0, 1.0} and metric.floor < 1:
        least = math.sqrt(metric.floor * (1 - metric.floor) / len(metric.documents))
        error = max(error, least)  # 0 if all answers are right
    return not (gain > 0 and gain >= times * error)


def parts_at_floor(metric: Metric) -> list[str]:
    """List the parts of an average of which a model knows nothing, by its documents unless `unknown` names them."""
    if metric.unknown is not None:
        return list(metric.unknown)
    parts = metric.parts
    return [part.task for part in parts if at_floor(part, noise(len(parts)))]


def _ends(metric: Metric) -> tuple[float, float] | None:
    """Return the ends of a 95 % interval: Wilson's where each answer is right or wrong, else Student's t.

    Source: Wilson 1927, doi:10.1080/01621459.1927.10502953. The share ± its error is too narrow near 0 and 1.
    """
    count, right = metric.count or 0, {*(metric.documents or ())}
    if metric.likelihood or metric.strata or count < 2 or not right or right - {0.0, 1.0}:
        return metric.ends(times_stderr(metric.count, len(metric.strata) or 1))
    wider = times_stderr(None) ** 2 / count
    centre = (metric.value + wider / 2) / (1 + wider)
    half = math.sqrt(wider * (metric.value * (1 - metric.value) + wider / 4)) / (1 + wider)
    return centre - half, centre + half


def measured(metric: Metric, intact: Metric | None = None) -> Measured:
    """Return a metric without the values of documents, but with the flips if the intact model's is given."""
    low, high = _ends(metric) or (None, None)
    chance = parts_at_floor(metric)
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
        parts={
            part.task: AveragedPart(
                value=part.value, stderr=part.stderr, floor=part.floor, at_floor=part.task in chance
            )
            for part in metric.parts
        },
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
        differ = [fmean(answer != was for answer in now) for was, *now in zip(intact.answers, *answers, strict=True)]
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

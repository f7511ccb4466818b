"""What is retained of the intact model's quality (100 %: all, 0 %: nothing), and how many blocks may be removed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

import numpy as np

from layerimp.metric import Key, Metric, Stratum
from layerimp.report.paired_bootstrap import DRAWS, Array, Estimate, drawable, resampled, scales
from layerimp.report.results import measures
from layerimp.report.results.rows import Level
from layerimp.report.statistics import at_floor, interval, noise, parts_at_floor

FEW = 30
"""The number of documents below which a figure means little."""
LEVELS = (0.9, 0.95, 0.99)
"""The levels: shares that have to be retained."""
ROUNDING = 1e-9
"""A share may lie this far below the one that is to be retained, since sums are rounded."""


@dataclass(frozen=True)
class RetainedDraws:
    """What models retain of one intact model.

    Attributes:
        tasks: What is retained, by task; None if the intact model does not know enough of the task. Tasks on which some
            model was not measured are missing.
        likelihood: The mean over the tasks that measure a likelihood; None if there are none. A negative value counts
            as 0.
        accuracy: The mean over all other tasks, in the same way.
        worst: The lower of the two means: the headline. None if a task was not measured.
    """

    tasks: Mapping[str, Estimate | None]
    likelihood: Estimate | None
    accuracy: Estimate | None
    worst: Estimate | None


def counting(metrics: Iterable[Metric]) -> dict[str, Metric]:
    """Return the metric by which each task counts: the likelihood, else the first listed, but F1 before exact match.

    Tasks of a group with a metric of its own count through the group.
    """
    listed = list(metrics)
    inside = {task for metric in listed for task in metric.members}
    by_task: dict[str, list[Metric]] = {}
    for metric in listed:
        if metric.task not in inside:
            by_task.setdefault(metric.task, []).append(metric)
    return {task: min(metrics, key=_rank) for task, metrics in by_task.items()}


def _rank(metric: Metric) -> int:
    """Return the rank of a metric; among equals, the first one listed counts."""
    if metric.likelihood is not None:
        return 0
    if not metric.higher_is_better:
        return 3
    return 2 if metric.name.partition("[")[0] in ("exact_match", "em") else 1


def why_nothing(intact: Metric) -> str:
    """Tell why nothing can be retained of the intact model's metric; empty if something can."""
    what = f"{intact.task}: nothing can be retained of {intact.name}, for "
    above = f"the intact model is not {noise(len(intact.parts) or 1):.2g} standard errors above"
    if (likelihood := intact.likelihood) is not None:
        if likelihood.unigram is None:
            return f"{what}the evaluator gives no likelihood of a model that knows nothing"
        if len(likelihood.totals) < 2:
            return f"{what}one document says nothing of its error"
        return f"{what}{above} a model that only knows how frequent each token is" if at_floor(intact) else ""
    if not intact.higher_is_better:
        return f"{what}lower is better, and the evaluator gives no likelihood"
    if intact.count == 1:
        return f"{what}one document says nothing of its error"
    floor = intact.floor or 0.0
    return f"{what}{above} what chance gives ({floor:.3g})" if at_floor(replace(intact, floor=floor)) else ""


def retained(intact: Metric, pruned: Sequence[Metric]) -> Estimate:
    """Return what is retained of one task, by repeat.

    For a likelihood this is (H0 - H) / (H0 - H(intact)), where H is the loss on all documents and H0 the loss of the
    unigram model; for other metrics (value - floor) / (intact - floor), which for an average is a ratio of means over
    the parts of which the intact model knows something: on others, values above or below the floor are chance.

    Args:
        intact: The intact model's metric, for which `why_nothing` is empty.
        pruned: The same metric of the pruned models.
    """
    if intact.likelihood is not None and intact.likelihood.unigram is not None:
        nothing = np.array(intact.likelihood.unigram)
        best = (np.array(intact.likelihood.totals) - nothing)[:, None]
        known = [metric.likelihood for metric in pruned]
        if any(likelihood is None or len(likelihood.totals) != len(nothing) for likelihood in known):
            return Estimate(np.full(len(pruned), math.nan))
        left = np.array([likelihood.totals for likelihood in known if likelihood is not None]).T - nothing[:, None]
        return _share(intact.task, left, best)
    if drawable([intact, *pruned]):
        parts, unknown = intact.parts or [intact], parts_at_floor(intact)
        floors = np.concatenate([np.full(part.count or 0, part.floor or 0.0) for part in parts])
        counts = np.concatenate([np.full(part.count or 0, part.task not in unknown) for part in parts])
        values = np.array([metric.documents for metric in (intact, *pruned)], dtype=np.float64).T
        gains = ((values - floors[:, None]) * scales(intact))[counts]
        strata = [stratum for stratum in intact.strata if stratum.part not in unknown]
        return _share(intact.task, gains[:, 1:], gains[:, :1], strata, counted=bool(np.isin(values, (0, 1)).all()))
    floor = intact.floor or 0.0
    gain = intact.value - floor
    points = np.array([(metric.value - floor) / gain for metric in pruned])
    errors = [
        math.hypot(metric.stderr, point * intact.stderr) / gain
        for metric, point in zip(pruned, points, strict=True)
        if metric.stderr is not None and intact.stderr is not None
    ]
    return Estimate(points, stderr=sum(errors) / len(errors) if len(errors) == len(points) else None)


def _share(task: str, left: Array, best: Array, strata: Sequence[Stratum] = (), *, counted: bool = False) -> Estimate:
    """Return the sum over `left` divided by the sum over `best`, with resamples.

    The denominator of a resample may come close to 0, so that its ratio would be far off. The draws are therefore those
    of the ratio to first order (Cochran 1977, 6.3). Where answers are right or wrong, few may change, or none, and the
    spread of those that do would be too small: one more document changes either way, as in `difference`.

    Args:
        task: The task.
        left: What is left of each document's value [document, repeat].
        best: The intact model's value of each document [document, 1].
        strata: The parts of the documents within which they are drawn.
        counted: Whether each answer is right or wrong.
    """
    points = left.sum(axis=0) / best.sum()
    known = np.isfinite(points)
    draws = np.full((DRAWS, len(points)), -math.inf)  # a model that gives a document the probability 0
    moved = resampled(task, left[:, known] - points[known] * best, strata)
    if counted:
        moved = moved + resampled(f"{task}, two more", np.array([[1.0], [-1.0]]))
    draws[:, known] = points[known] + moved / best.sum()
    return Estimate(points, draws, len(best), strata=len(strata) or 1)


def summed_up(intact: Mapping[str, Metric], tables: Sequence[Mapping[Key, Metric]]) -> RetainedDraws:
    """Return what the models of one scorer retain, by task and on average.

    Args:
        intact: The metric by which each task counts, of the intact model.
        tables: The metrics of the pruned models, one table for each repeat.
    """
    tasks: dict[str, Estimate | None] = {}
    kinds: dict[str, list[Estimate | None]] = {"likelihood": [], "accuracy": []}
    for task, metric in intact.items():
        metrics = [table[task, metric.name] for table in tables if (task, metric.name) in table]
        if why_nothing(metric):
            tasks[task] = None
            continue
        missing = len(metrics) < len(tables)
        if not missing:
            tasks[task] = retained(metric, metrics)
        kinds["accuracy" if metric.likelihood is None else "likelihood"].append(None if missing else tasks[task])
    likelihood, accuracy = _mean(kinds["likelihood"]), _mean(kinds["accuracy"])
    known = [estimate for estimate in (likelihood, accuracy) if estimate is not None]
    whole = len(known) == sum(map(bool, kinds.values()))
    return RetainedDraws(
        tasks, likelihood, accuracy, min(known, key=lambda estimate: estimate.mean) if known and whole else None
    )


def _mean(estimates: Sequence[Estimate | None]) -> Estimate | None:
    """Return the mean over tasks, where negative values count as 0; None without tasks, or if one was not measured.

    It has resamples if all tasks have them, and the fewest degrees of freedom of them.
    """
    known = [
        _clipped(estimate) for estimate in estimates if estimate is not None and not np.isnan(estimate.points).any()
    ]
    if not known or len(known) < len(estimates):
        return None
    points = np.mean([estimate.points for estimate in known], axis=0)
    draws = [estimate.draws for estimate in known if estimate.draws is not None]
    if len(draws) == len(known):
        least = min(known, key=lambda estimate: (estimate.documents or 0) - estimate.strata)
        return Estimate(points, np.mean(draws, axis=0), least.documents, strata=least.strata)
    errors = [estimate.error for estimate in known if estimate.error is not None]
    return Estimate(points, stderr=math.hypot(*errors) / len(errors) if len(errors) == len(known) else None)


def _clipped(figure: Estimate) -> Estimate:
    """Return a figure with 0 in place of negative values. Other values keep their draws, and so their error."""
    points = np.maximum(figure.points, 0.0)
    draws = None if figure.draws is None else np.where(figure.points > 0, figure.draws, np.maximum(figure.draws, 0.0))
    return replace(figure, points=points, draws=draws, right=None)


def share(estimate: Estimate | None) -> measures.Share | None:
    """Return what models retain, as a mean over the repeats."""
    return None if estimate is None else measures.Share(mean=estimate.mean, stderr=estimate.error)


def shares(estimates: RetainedDraws) -> measures.Retained:
    """Return what models retain by task and on average."""
    return measures.Retained(
        tasks={task: share(kept) for task, kept in estimates.tasks.items()},
        likelihood=share(estimates.likelihood),
        accuracy=share(estimates.accuracy),
        worst=share(estimates.worst),
    )


def worst_by_repeat(retained: RetainedDraws) -> list[float] | None:
    """Return what the model of each repeat retains, as the lower of its two means; None if not known."""
    if retained.worst is None:
        return None
    means = [kept.points for kept in (retained.likelihood, retained.accuracy) if kept is not None]
    lowest: list[float] = np.min(means, axis=0).tolist()
    return lowest


def removable(curves: Sequence[Mapping[int, float]]) -> tuple[list[int], dict[float, Level]]:
    """Find how many blocks may be removed, by level.

    Args:
        curves: For each repeat, what is retained, by the number of removed blocks.

    Returns:
        The numbers that were measured in every repeat, in ascending order, and the results by level; both empty if
        there is no such number.
    """
    measured = sorted(set.intersection(*map(set, curves))) if curves else []
    levels = {}
    for share in LEVELS if measured else ():
        counts = [_most(curve, measured, share - ROUNDING) for curve in curves]
        mean = interval([float(count) for count in counts])
        if mean.low is not None:
            mean = mean.model_copy(update={"low": max(0.0, mean.low)})  # a number of blocks is not negative
        levels[share] = Level(counts=counts, mean=mean, at_least=measured[-1] in counts)
    return measured, levels


def _most(curve: Mapping[int, float], measured: Sequence[int], level: float) -> int:
    """Return the last number before the first at which too little is retained; 0 if the first number fails."""
    return max(takewhile(lambda count: curve[count] >= level, measured), default=0)

"""From lm-eval's results to metrics, each with a standard error."""

from __future__ import annotations

import math
import zlib
from collections import defaultdict
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from layerimp.errors import NonFiniteError
from layerimp.evaluator import Metric

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

_CORPUS_SCORES = frozenset({"bleu", "chrf", "chrf++", "ter"})
_CORPUS_DRAWS = 100  # lm-eval's own limit: each draw scores the whole corpus again


@dataclass(frozen=True)
class Saturating:
    """An aggregation that is infinite where it overflows, as the perplexity of a broken model does."""

    exact: Callable[[Sequence[Any]], Any]

    def __call__(self, items: Sequence[Any]) -> Any:
        """`exact(items)`, or infinity."""
        try:
            return self.exact(items)
        except OverflowError:
            return math.inf


def collect(
    results: Mapping[str, Any], tasks: Mapping[str, Any], groups: Mapping[str, Any], *, draws: int, seed: int
) -> list[Metric]:
    """One metric per task and name, and the aggregates of groups that have one.

    Args:
        results: What `lm_eval.evaluator.evaluate` returned, with samples.
        tasks: The leaf tasks by name.
        groups: The groups by name.
        draws: Bootstrap draws, where there is no closed form of the standard error.
        seed: Where the draws start.

    Raises:
        NonFiniteError: a metric is NaN; names the task and the metric.
    """
    directions = results["higher_is_better"]
    rows: dict[str, dict[str, Any]] = {name: dict(results["results"][name]) for name in tasks}
    metrics = []
    for name, task in tasks.items():
        aggregations = task.aggregation()
        for (metric, chosen), items in _by_metric(results["samples"][name]).items():
            rng = np.random.default_rng([seed, zlib.crc32(f"{name},{metric},{chosen}".encode())])
            limit = min(draws, _CORPUS_DRAWS) if metric in _CORPUS_SCORES else draws
            stderr = standard_error(aggregations.get(metric), items, draws=limit, rng=rng)
            rows[name][f"{metric}_stderr,{chosen}"] = "N/A" if stderr is None else stderr
        metrics += _row_metrics(name, rows[name], directions.get(name) or {})
    for name, group in groups.items():
        if group.has_aggregation:
            # Once more, for now every task has its standard error.
            metrics += _row_metrics(name, group.aggregate(rows), directions.get(name) or {})
    return metrics


def standard_error(
    aggregation: Callable[[Sequence[Any]], Any] | None,
    items: Sequence[Any],
    *,
    draws: int,
    rng: np.random.Generator,
) -> float | None:
    """The standard error of `aggregation(items)`: closed form for means, else a bootstrap over the documents.

    Args:
        aggregation: None means the mean, as in lm-eval.
        items: One per document.
        draws: Bootstrap draws.
        rng: Where the draws come from.

    Returns:
        The error; infinite where draws are; None for a single document.
    """
    from lm_eval.api import metrics

    exact: Any = aggregation.exact if isinstance(aggregation, Saturating) else aggregation or metrics.mean
    if len(items) < 2:
        return None
    if exact is metrics.mean:
        error = float(metrics.mean_stderr(items))
        return math.inf if math.isnan(error) else error
    if exact is metrics.acc_all:
        return float(metrics.acc_all_stderr(items))
    finish: dict[Any, Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]] = {
        metrics.weighted_mean: lambda ratio: ratio,
        metrics.weighted_perplexity: lambda ratio: np.exp(-ratio),
        metrics.perplexity: lambda ratio: np.exp(-ratio),
        metrics.bits_per_byte: lambda ratio: -ratio / math.log(2),
    }
    with np.errstate(all="ignore"):
        if exact in finish:
            pairs = [(item, 1) for item in items] if exact is metrics.perplexity else items
            values = finish[exact](_ratios(np.asarray(pairs, dtype=np.float64), draws, rng))
        else:
            values = _redrawn(Saturating(exact), items, draws, rng)
        if np.isinf(values).any():
            return math.inf
        values = values[~np.isnan(values)]
        return float(values.std(ddof=1)) if len(values) > 1 else None


def _ratios(pairs: npt.NDArray[np.float64], draws: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Sum of the first over sum of the second column, of `draws` resamples. `pairs`: [documents, 2]."""
    sums = np.stack([pairs[rng.integers(len(pairs), size=len(pairs))].sum(axis=0) for _ in range(draws)])
    ratios: npt.NDArray[np.float64] = sums[:, 0] / sums[:, 1]
    return ratios


def _redrawn(
    aggregation: Callable[[Sequence[Any]], Any], items: Sequence[Any], draws: int, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    values = []
    for _ in range(draws):
        try:
            values.append(float(aggregation([items[i] for i in rng.integers(len(items), size=len(items))])))
        except (ArithmeticError, ValueError):  # a resample on which the metric is not defined
            continue
    return np.asarray(values, dtype=np.float64)


def _by_metric(samples: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], list[Any]]:
    """(metric, filter) -> its value for each document, in the order in which lm-eval aggregated them."""
    items: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for sample in samples:
        for metric in sample["metrics"]:
            items[metric, sample["filter"]].append(sample[metric])
    return items


def _row_metrics(task: str, row: Mapping[str, Any], directions: Mapping[str, bool | None]) -> list[Metric]:
    found: dict[str, Metric] = {}
    for key, value in row.items():
        name, comma, chosen = key.rpartition(",")
        if not comma or name.endswith("_stderr") or not isinstance(value, Real):
            continue
        if math.isnan(value):
            raise NonFiniteError(f"metric {name!r} of task {task!r} is NaN")
        error = row.get(f"{name}_stderr,{chosen}")
        better = directions.get(name)
        label = f"{name}[{chosen}]" if name in found else name
        found[label] = Metric(
            task=task,
            name=label,
            value=float(value),
            stderr=float(error) if isinstance(error, Real) else None,
            higher_is_better=True if better is None else bool(better),
        )
    return list(found.values())

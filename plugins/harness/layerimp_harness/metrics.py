"""From lm-eval's results to metrics, each with a standard error."""

from __future__ import annotations

import math
import zlib
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from layerimp.errors import NonFiniteError
from layerimp.evaluator import Likelihood, Metric, unigram
from layerimp_harness.floors import chance

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

_CORPUS_SCORES = frozenset({"bleu", "chrf", "chrf++", "ter"})
_CORPUS_DRAWS = 100  # lm-eval's own limit: each draw scores the whole corpus again
_HASH = 12  # hexadecimal digits of a document's hash that are kept: 48 bits


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
    results: Mapping[str, Any],
    tasks: Mapping[str, Any],
    groups: Mapping[str, Any],
    tokens: Callable[[Sequence[str]], Sequence[int]] | None = None,
    vocabulary: int = 0,
    *,
    draws: int,
    seed: int,
) -> list[Metric]:
    """One metric per task and name, and the aggregates of groups that have one.

    Args:
        results: What lm-eval's `evaluate` returned, with samples.
        tasks: The leaf tasks by name.
        groups: The groups by name.
        tokens: The tokens that the model predicts of a request with these arguments; None for a classifier.
        vocabulary: How many tokens the model knows.
        draws: Bootstrap draws, where there is no closed form of the standard error.
        seed: Where the draws start.

    Raises:
        NonFiniteError: a metric is NaN; names the task and the metric.
    """
    directions = results["higher_is_better"]
    rows: dict[str, dict[str, Any]] = {name: dict(results["results"][name]) for name in tasks}
    floors: dict[str, dict[str, Any]] = {name: dict(row) for name, row in rows.items()}
    metrics = []
    for name, task in tasks.items():
        aggregations, samples = task.aggregation(), results["samples"][name]
        details: dict[str, dict[str, Any]] = {}
        nothing = _Unigram(samples, tokens, vocabulary)
        for (metric, chosen), items in _by_metric(samples).items():
            aggregation = aggregations.get(metric)
            rng = np.random.default_rng([seed, zlib.crc32(f"{name},{metric},{chosen}".encode())])
            limit = min(draws, _CORPUS_DRAWS) if metric in _CORPUS_SCORES else draws
            stderr = standard_error(aggregation, items, draws=limit, rng=rng)
            rows[name][f"{metric}_stderr,{chosen}"] = "N/A" if stderr is None else stderr
            own = [sample for sample in samples if sample["filter"] == chosen]
            floor = chance(task, metric, own, _aggregation(aggregation))
            floors[name][f"{metric},{chosen}"] = math.nan if floor is None else floor
            hashes = tuple(int(sample["doc_hash"][:_HASH], 16) for sample in own if metric in sample["metrics"])
            documents = _by_document(aggregation, items, nothing)
            details[f"{metric},{chosen}"] = {"floor": floor, "hashes": hashes, **documents}
        metrics += _row_metrics(name, rows[name], directions.get(name) or {}, details)
    for name, group in groups.items():
        if group.has_aggregation:
            # Once more, for now every task has its standard error; and with the floors in place of the values.
            summed, least = group.aggregate(rows), group.aggregate(floors)
            inside = [task.task_name for task in group.get_all_tasks()]
            leaves = [metric for metric in metrics if metric.task in inside]
            details = {key: _of_group(key, value, least.get(key), leaves) for key, value in summed.items()}
            groups_inside = tuple(one.name for one in group.get_all_groups())
            for found in details.values():
                found["members"] += groups_inside
            metrics += _row_metrics(name, summed, directions.get(name) or {}, details)
    return metrics


def _of_group(key: str, value: Any, floor: Any, tasks: Sequence[Metric]) -> dict[str, Any]:
    """What the average of several tasks keeps: its floor, and all documents, weighted so that it is their mean."""
    own = [metric for metric in tasks if metric.name == key.partition(",")[0]]
    found: dict[str, Any] = {"members": tuple(metric.task for metric in own)}
    if isinstance(floor, Real) and not math.isnan(floor):
        found["floor"] = float(floor)
    documents = [metric.documents for metric in own if metric.documents]
    if isinstance(value, Real) and own and len(documents) == len(own):
        total = sum(map(len, documents))
        for alike in (1.0, 0.0):  # every document counts alike, or every task
            weights = [alike or total / len(documents) / len(each) for each in documents]
            kept = tuple(w * one for w, each in zip(weights, documents, strict=True) for one in each)
            if math.isclose(sum(kept) / total, value, abs_tol=1e-9):
                hashes = tuple(one for metric in own for one in metric.hashes or ())
                return found | {"documents": kept, "hashes": hashes if len(hashes) == total else None}
    return found


@dataclass
class _Unigram:
    """The log-likelihoods of a task's documents under token frequencies, computed where a perplexity asks for them."""

    samples: Sequence[Mapping[str, Any]]
    tokens: Callable[[Sequence[str]], Sequence[int]] | None
    vocabulary: int

    @cached_property
    def totals(self) -> tuple[float, ...] | None:
        """By document, in nats; None where the tokens are not known."""
        if self.tokens is None:
            return None
        first = self.samples[0]["filter"]
        own = [sample["arguments"] for sample in self.samples if sample["filter"] == first]
        return unigram([self.tokens(arguments[0]) for arguments in own], self.vocabulary)


def _aggregation(given: Callable[[Sequence[Any]], Any] | None) -> Any:
    """lm-eval's own function; its default is the mean."""
    from layerimp_harness.lm_eval_names import metrics

    return given.exact if isinstance(given, Saturating) else given or metrics.mean


def _by_document(
    aggregation: Callable[[Sequence[Any]], Any] | None, items: Sequence[Any], nothing: _Unigram
) -> dict[str, Any]:
    """What a metric keeps of its documents: their values, or their log-likelihoods; nothing for scores of a corpus."""
    from layerimp_harness.lm_eval_names import metrics

    exact = _aggregation(aggregation)
    if exact is metrics.mean:
        return {"documents": tuple(map(float, items))}
    found = _likelihood(exact, items)
    return {} if found is None else {"likelihood": replace(found, unigram=nothing.totals)}


def _likelihood(exact: Any, items: Sequence[Any]) -> Likelihood | None:
    """The log-likelihoods behind a perplexity; `perplexity` counts documents. None for other aggregations."""
    from layerimp_harness.lm_eval_names import metrics

    if exact is metrics.perplexity:
        return Likelihood(*_columns([(item, 1) for item in items]))
    if exact in (metrics.weighted_perplexity, metrics.bits_per_byte):
        return Likelihood(*_columns(items), bits=exact is metrics.bits_per_byte)
    return None


def _columns(pairs: Sequence[tuple[Any, Any]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Values and their units, by document."""
    return tuple(float(value) for value, _ in pairs), tuple(float(units) for _, units in pairs)


def standard_error(
    aggregation: Callable[[Sequence[Any]], Any] | None,
    items: Sequence[Any],
    *,
    draws: int,
    rng: np.random.Generator,
) -> float | None:
    """The standard error of `aggregation(items)`: closed for means and ratios, else a bootstrap over the documents.

    That of a perplexity is its value times the error of the loss per unit: to first order, where the error is small.

    Args:
        aggregation: None means the mean, as in lm-eval.
        items: One per document.
        draws: Bootstrap draws.
        rng: Where the draws come from.

    Returns:
        The error; infinite where the value, or a draw, is; None for a single document.
    """
    from layerimp_harness.lm_eval_names import metrics

    exact = _aggregation(aggregation)
    if len(items) < 2:
        return None
    if exact is metrics.mean:
        error = float(metrics.mean_stderr(items))
        return math.inf if math.isnan(error) else error
    if exact is metrics.acc_all:
        return float(metrics.acc_all_stderr(items))
    if exact is metrics.weighted_mean:
        return Likelihood(*_columns(items)).stderr
    if (found := _likelihood(exact, items)) is not None:
        slope = 1 / math.log(2) if found.bits else found.metric(found.loss)
        return math.inf if found.stderr is None or math.isinf(slope) else slope * found.stderr
    with np.errstate(all="ignore"):
        values = _redrawn(Saturating(exact), items, draws, rng)
        if np.isinf(values).any():
            return math.inf
        values = values[~np.isnan(values)]
        return float(values.std(ddof=1)) if len(values) > 1 else None


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


def _row_metrics(
    task: str,
    row: Mapping[str, Any],
    directions: Mapping[str, bool | None],
    details: Mapping[str, Mapping[str, Any]],
) -> list[Metric]:
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
            **details.get(key, {}),
        )
    return list(found.values())

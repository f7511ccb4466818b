"""Turn lm-eval's results into metrics with standard errors."""

from __future__ import annotations

import math
import zlib
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import compress
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from layerimp.errors import NonFiniteError
from layerimp.evaluator import Likelihood, Metric, unigram
from layerimp_harness.answered import answers
from layerimp_harness.averages import averages, details_of
from layerimp_harness.floors import chance

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

_CORPUS_SCORES = frozenset({"bleu", "chrf", "chrf++", "ter"})
_CORPUS_DRAWS = 100  # lm-eval's own limit: each draw scores the whole corpus again
_HASH = 12  # the number of hexadecimal digits kept of a document's hash: 48 bits


@dataclass(frozen=True)
class Saturating:
    """An aggregation that returns infinity on overflow, which happens for the perplexity of a broken model.

    Attributes:
        exact: lm-eval's aggregation.
    """

    exact: Callable[[Sequence[Any]], Any]

    def __call__(self, items: Sequence[Any]) -> Any:
        """Return `exact(items)`, or infinity on overflow."""
        try:
            return self.exact(items)
        except OverflowError:
            return math.inf


def collect(
    results: Mapping[str, Any],
    tasks: Mapping[str, Any],
    groups: Mapping[str, Any],
    predicted: tuple[Callable[[Sequence[str]], Sequence[int]] | None, int],
    *,
    draws: int,
    seed: int,
) -> list[Metric]:
    """Return the metrics of every task, and those of the groups that define an aggregation or an average.

    Args:
        results: The result of lm-eval's `evaluate`, with samples.
        tasks: The leaf tasks by name.
        groups: The groups by name.
        predicted: What returns the tokens that the model predicts for a request with these arguments, and the size of
            its vocabulary; None and 0 for a classifier.
        draws: The number of bootstrap draws, for standard errors without a closed form.
        seed: The seed of the draws.

    Raises:
        NonFiniteError: a metric is NaN; the text names the task and the metric.
    """
    directions = results["higher_is_better"]
    rows: dict[str, dict[str, Any]] = {name: dict(results["results"][name]) for name in tasks}
    floors: dict[str, dict[str, Any]] = {name: dict(row) for name, row in rows.items()}
    measured: dict[tuple[str, str], Metric] = {}  # by task and lm-eval's key
    for name, task in tasks.items():
        aggregations, samples = task.aggregation(), results["samples"][name]
        details: dict[str, dict[str, Any]] = {}
        nothing = _Unigram(samples, *predicted)
        for (metric, chosen), items in _by_metric(samples).items():
            aggregation = aggregations.get(metric)
            rng = np.random.default_rng([seed, zlib.crc32(f"{name},{metric},{chosen}".encode())])
            limit = min(draws, _CORPUS_DRAWS) if metric in _CORPUS_SCORES else draws
            stderr = standard_error(aggregation, items, draws=limit, rng=rng)
            rows[name][f"{metric}_stderr,{chosen}"] = "N/A" if stderr is None else stderr
            every = [sample for sample in samples if sample["filter"] == chosen]
            own = [sample for sample in every if metric in sample["metrics"]]  # a document may lack a metric
            floor = chance(task, metric, own, _aggregation(aggregation))
            floors[name][f"{metric},{chosen}"] = math.nan if floor is None else floor
            hashes = tuple(int(sample["doc_hash"][:_HASH], 16) for sample in own)
            documents = _by_document(aggregation, items, nothing, [metric in sample["metrics"] for sample in every])
            given = answers(task, metric, own)
            details[f"{metric},{chosen}"] = {"floor": floor, "hashes": hashes, "answers": given, **documents}
        own_metrics = _row_metrics(name, rows[name], directions.get(name) or {}, details)
        measured |= {(name, key): metric for key, metric in own_metrics.items()}
    metrics = list(measured.values())
    for name, group in groups.items():
        if group.has_aggregation:
            # lm-eval aggregated without the standard errors. Repeat that with them, and again for the floors.
            values, least = group.aggregate(rows), group.aggregate(floors)
            details = {key: details_of(group, key, values, least, rows, measured) for key in values}
            metrics += _row_metrics(name, values, directions.get(name) or {}, details).values()
    return [*averages(groups, metrics), *metrics]


@dataclass
class _Unigram:
    """The log-likelihoods of a task's documents under token frequencies, computed on demand for perplexities.

    Attributes:
        samples: The documents as lm-eval logged them.
        tokens: Returns the tokens that the model predicts for a request; None for a classifier.
        vocabulary: The size of the model's vocabulary.
    """

    samples: Sequence[Mapping[str, Any]]
    tokens: Callable[[Sequence[str]], Sequence[int]] | None
    vocabulary: int

    @cached_property
    def totals(self) -> tuple[float, ...] | None:
        """The log-likelihood of each document, in nats; None if the tokens are not known."""
        if self.tokens is None:
            return None
        first = self.samples[0]["filter"]
        own = [sample["arguments"] for sample in self.samples if sample["filter"] == first]
        return unigram([self.tokens(arguments[0]) for arguments in own], self.vocabulary)


def _aggregation(given: Callable[[Sequence[Any]], Any] | None) -> Any:
    """Return lm-eval's own aggregation function; by default the mean."""
    from layerimp_harness.lm_eval_names import metrics

    return given.exact if isinstance(given, Saturating) else given or metrics.mean


def _by_document(
    aggregation: Callable[[Sequence[Any]], Any] | None, items: Sequence[Any], nothing: _Unigram, has: Sequence[bool]
) -> dict[str, Any]:
    """Return a metric's values or log-likelihoods by document; for scores of a whole corpus, an empty dictionary.

    Args:
        aggregation: Computes the metric from the values of the documents.
        items: The values, of the documents that have the metric.
        nothing: The log-likelihoods of all documents under token frequencies.
        has: Whether a document has the metric.
    """
    from layerimp_harness.lm_eval_names import metrics

    exact = _aggregation(aggregation)
    if exact is metrics.mean:
        return {"documents": tuple(map(float, items))}
    likelihood = _likelihood(exact, items)
    if likelihood is None:
        return {}
    unigram = nothing.totals and tuple(compress(nothing.totals, has))
    return {"likelihood": replace(likelihood, unigram=unigram)}


def _likelihood(exact: Any, items: Sequence[Any]) -> Likelihood | None:
    """Return the log-likelihoods behind a perplexity, with documents as the units of `perplexity`; else None."""
    from layerimp_harness.lm_eval_names import metrics

    if exact is metrics.perplexity:
        return Likelihood(*_columns([(item, 1) for item in items]))
    if exact in (metrics.weighted_perplexity, metrics.bits_per_byte):
        return Likelihood(*_columns(items), bits=exact is metrics.bits_per_byte)
    return None


def _columns(pairs: Sequence[tuple[Any, Any]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the values and the units, each by document."""
    return tuple(float(value) for value, _ in pairs), tuple(float(units) for _, units in pairs)


def standard_error(
    aggregation: Callable[[Sequence[Any]], Any] | None,
    items: Sequence[Any],
    *,
    draws: int,
    rng: np.random.Generator,
) -> float | None:
    """Return the standard error of `aggregation(items)`: in closed form for means and ratios, else by a bootstrap.

    The standard error of a perplexity is its value times the standard error of the loss per unit, which is exact to
    first order in the error.

    Args:
        aggregation: The aggregation; None means the mean, as in lm-eval.
        items: One value per document.
        draws: The number of bootstrap draws.
        rng: The random generator of the draws.

    Returns:
        The standard error; infinite if the value or a draw is infinite; None for a single document.
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
    if (likelihood := _likelihood(exact, items)) is not None:
        slope = 1 / math.log(2) if likelihood.bits else likelihood.metric(likelihood.loss)
        return math.inf if likelihood.stderr is None or math.isinf(slope) else slope * likelihood.stderr
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
    """Return the values of each (metric, filter) by document, in the order in which lm-eval aggregated them."""
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
) -> dict[str, Metric]:
    """Return the metrics in lm-eval's results of a task or group, by its key."""
    metrics: dict[str, Metric] = {}
    for key, value in row.items():
        name, comma, chosen = key.rpartition(",")
        if not comma or name.endswith("_stderr") or not isinstance(value, Real):
            continue
        if math.isnan(value):
            raise NonFiniteError(f"metric {name!r} of task {task!r} is NaN")
        error = row.get(f"{name}_stderr,{chosen}")
        better = directions.get(name)
        first = all(metric.name != name for metric in metrics.values())
        metrics[key] = Metric(
            task=task,
            name=name if first else f"{name}[{chosen}]",
            value=float(value),
            stderr=float(error) if isinstance(error, Real) else None,
            higher_is_better=True if better is None else bool(better),
            **details.get(key, {}),
        )
    return metrics

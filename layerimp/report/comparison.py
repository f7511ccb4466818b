"""Pruned models side by side: what each retains on average, and which cannot be told from the best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from layerimp.defaults import ORIGINAL
from layerimp.evaluator import Metric, retention, retention_stderr

NOISE = 2.0
"""How many standard errors of their difference two numbers have to be apart to be told apart."""

Key = tuple[str, str]
"""A task and a metric."""


@dataclass(frozen=True)
class Estimate:
    """A number and its standard error, or None where that is not known."""

    value: float
    stderr: float | None


@dataclass(frozen=True)
class Comparison:
    """Pruned models side by side.

    Attributes:
        labels: The models, from the one that retains most on average to the one that retains least.
        average: By label, the retention averaged over each task's metrics and then over the tasks. Only metrics whose
            retention every model has take part; where there is none, no model has an average.
        best: By task and metric, the labels that have the best value or cannot be told from it. Empty where no error
            bars say so, and where there is nothing to compare.
        best_average: The same of the averages.
    """

    labels: Sequence[str]
    average: Mapping[str, Estimate]
    best: Mapping[Key, frozenset[str]]
    best_average: frozenset[str]

    @classmethod
    def of(cls, metrics: Mapping[str, Sequence[Metric]]) -> Comparison:
        """Compare the metrics of models by label, the intact one's under `original`."""
        tables = {label: {(m.task, m.name): m for m in found} for label, found in metrics.items()}
        intact = tables.pop(ORIGINAL, {})
        average = _averages(intact, tables)
        # Sorting is stable: models without an average stay in the order in which they were asked for.
        labels = sorted(tables, key=lambda label: -average[label].value if label in average else 0.0)
        best = {}
        for key, metric in intact.items():
            sign = 1 if metric.higher_is_better else -1
            measured = {label: table[key] for label, table in tables.items() if key in table}
            best[key] = _best({label: Estimate(sign * m.value, m.stderr) for label, m in measured.items()})
        return cls(labels, average, best, _best(average))

    def to_dict(self) -> dict[str, Any]:
        """The comparison as JSON."""
        best: dict[str, dict[str, list[str]]] = {}
        for (task, name), labels in self.best.items():
            best.setdefault(task, {})[name] = [label for label in self.labels if label in labels]
        return {
            "order": list(self.labels),
            "average_retention": {
                label: {"value": self.average[label].value, "stderr": self.average[label].stderr}
                if label in self.average
                else None
                for label in self.labels
            },
            "best": best,
            "best_average": [label for label in self.labels if label in self.best_average],
        }


def average_retention(intact: Mapping[Key, Metric], table: Mapping[Key, Metric]) -> Estimate | None:
    """One model's retention, averaged over each task's metrics and then over the tasks.

    None where a metric is missing, or its retention says nothing, though the intact model has one that does.
    """
    telling = {key: metric for key, metric in intact.items() if retention(metric, metric) is not None}
    if not telling or not all(
        key in table and retention(metric, table[key]) is not None for key, metric in telling.items()
    ):
        return None
    return _averages(telling, {"": table})[""]


def _averages(intact: Mapping[Key, Metric], tables: Mapping[str, Mapping[Key, Metric]]) -> dict[str, Estimate]:
    """The average retentions by label, over the metrics of which every model has one."""
    shared: dict[str, list[Key]] = {}
    for key, metric in intact.items():
        if all(key in table and retention(metric, table[key]) is not None for table in tables.values()):
            shared.setdefault(key[0], []).append(key)
    if not shared:
        return {}
    return {label: _average(intact, table, shared) for label, table in tables.items()}


def _average(intact: Mapping[Key, Metric], table: Mapping[Key, Metric], shared: Mapping[str, list[Key]]) -> Estimate:
    values, errors = [], []
    for keys in shared.values():
        pairs = [(intact[key], table[key]) for key in keys]
        shares = [retention(*pair) for pair in pairs]
        spreads = [retention_stderr(*pair) for pair in pairs]
        values.append(sum(share for share in shares if share is not None) / len(pairs))
        # The metrics of a task are measured on the same documents, so that their errors add up; those of tasks do not.
        known = [spread for spread in spreads if spread is not None]
        errors.append(sum(known) / len(pairs) if len(known) == len(pairs) else math.nan)
    error = math.hypot(*errors) / len(errors)
    return Estimate(sum(values) / len(values), error if math.isfinite(error) else None)


def _best(estimates: Mapping[str, Estimate]) -> frozenset[str]:
    """The labels with the highest value, and those within the noise of it; none where the noise is not known."""
    finite = {label: one for label, one in estimates.items() if math.isfinite(one.value)}
    errors = {label: one.stderr for label, one in finite.items() if one.stderr is not None}
    if len(estimates) < 2 or not finite or len(errors) < len(finite):
        return frozenset()
    top = max(finite, key=lambda label: finite[label].value)
    noise = {label: NOISE * math.hypot(errors[top], error) for label, error in errors.items()}
    gaps = {label: finite[top].value - one.value for label, one in finite.items()}
    # An infinite error is that of a model so broken that some draws of its metric overflow.
    return frozenset(label for label in finite if math.isfinite(noise[label]) and gaps[label] <= noise[label])

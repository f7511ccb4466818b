"""Stores an intact model's metrics under a hash of everything that can change them."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from typing import TYPE_CHECKING

from layerimp._paths import write_whole
from layerimp.cache.directory import cache_directory
from layerimp.evaluation.packing import packed, unpacked

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from layerimp.evaluator import Evaluator
    from layerimp.metric import Metric

FORMAT = "compressed"
"""The version in every key: metrics in another format are measured again."""


class MetricsCache:
    """The stored metrics of intact models, one JSON file per key."""

    def __init__(self) -> None:
        self.directory = cache_directory("metrics")

    def _path(self, *parts: str) -> Path:
        key = json.dumps((FORMAT, *parts)).encode()
        return self.directory / f"{hashlib.blake2b(key, digest_size=20).hexdigest()}.json"

    def get(self, *parts: str) -> list[Metric] | None:
        """Return the metrics under the key made of `parts`, or None."""
        try:
            return unpacked(json.loads(self._path(*parts).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, AttributeError, LookupError):
            return None

    def put(self, metrics: list[Metric], *parts: str) -> None:
        """Store metrics. If the cache cannot be written, nothing is stored; this is not an error."""
        path = self._path(*parts)
        document = json.dumps(packed(metrics))
        with suppress(OSError):
            write_whole(path, document)


class StoredMetrics:
    """An evaluator's metrics of an intact model, stored by task, so that other tasks beside them do not matter.

    An evaluator that measures no tasks, or a single one, has one part; any other has a part for each task.

    Args:
        evaluator: The evaluator, prepared.
        weights: Returns the fingerprint of the intact model; called only if the evaluator has one of its own.

    Attributes:
        known: The metrics of the parts that are stored, by task.
    """

    def __init__(self, evaluator: Evaluator, weights: Callable[[], str]) -> None:
        self._evaluator, self._cache = evaluator, MetricsCache()
        tasks = tuple(dict.fromkeys(getattr(evaluator.config, "tasks", ())))
        self._parts = {task: evaluator.for_tasks(task) for task in tasks} if len(tasks) > 1 else {"": evaluator}
        tags = {task: part.fingerprint() for task, part in self._parts.items()}
        self._keys = {task: (weights(), evaluator.name, tag) for task, tag in tags.items() if tag is not None}
        stored = {task: self._cache.get(*key) for task, key in self._keys.items()}
        self.known = {task: metrics for task, metrics in stored.items() if metrics is not None}
        self._new: list[Metric] = []

    @property
    def missing(self) -> list[str]:
        """The parts that are not stored, by task."""
        return [task for task in self._parts if task not in self.known]

    def unmeasured(self) -> Evaluator:
        """Return an evaluator of the missing parts."""
        if not self.known:
            return self._evaluator
        return self._evaluator.for_tasks(*self.missing)

    def add(self, metrics: list[Metric]) -> None:
        """Add and store the metrics of the missing parts.

        Several parts are not stored if a metric has a name that none of them, or more than one, reports.
        """
        missing, self._new = self.missing, metrics
        if len(missing) > 1:
            owners = [[task for task in missing if metric.task in self._parts[task].reported()] for metric in metrics]
            if any(len(tasks) != 1 for tasks in owners):
                return
            own = {task: [m for m, (owner,) in zip(metrics, owners, strict=True) if owner == task] for task in missing}
        else:
            own = dict.fromkeys(missing, metrics)
        self._new = []
        for task, measured in own.items():
            self.known[task] = measured
            if task in self._keys:
                self._cache.put(measured, *self._keys[task])

    @property
    def metrics(self) -> list[Metric]:
        """The metrics of all parts, in the order of the tasks."""
        return [metric for task in self._parts for metric in self.known.get(task, ())] + self._new

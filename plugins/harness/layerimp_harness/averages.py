"""The mean accuracy of a group whose tasks are measured by different metrics, as papers report it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from layerimp.evaluator import Metric

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

MEAN_OF = "mean_of"
"""The key in a group's metadata that names the metric by which each of its tasks and groups counts in the mean."""
NAME = "accuracy"


def averages(groups: Mapping[str, Any], metrics: Sequence[Metric]) -> Iterator[Metric]:
    """Yield the mean of each group that names its parts, if all of them were measured; without one there is no mean.

    Each part has the same weight, however many documents it has. The standard error is that over the documents within
    the tasks, and the floor is the mean of the floors.

    Args:
        groups: lm-eval's groups by name.
        metrics: The metrics of tasks and groups.
    """
    measured = {(metric.task, metric.name): metric for metric in metrics}
    for name, group in groups.items():
        named = (group.metadata or {}).get(MEAN_OF) or {}
        parts = [measured[key] for key in named.items() if key in measured]
        if not named or len(parts) < len(named):
            continue
        inside = [task.task_name for task in group.get_all_tasks()] + [one.name for one in group.get_all_groups()]
        errors, floors = [part.stderr for part in parts], [part.floor for part in parts]
        yield Metric(
            task=name,
            name=NAME,
            value=sum(part.value for part in parts) / len(parts),
            stderr=None if None in errors else math.hypot(*filter(None, errors)) / len(parts),
            floor=None if None in floors else sum(filter(None, floors)) / len(parts),
            members=tuple(inside),
        )

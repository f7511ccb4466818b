"""The mean accuracy of a group whose tasks are measured by different metrics, as papers report it."""

from __future__ import annotations

import math
from itertools import chain, groupby
from typing import TYPE_CHECKING, Any

from layerimp.evaluator import Metric, Stratum, mean_and_error

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

MEAN_OF = "mean_of"
"""The key in a group's metadata that names the metric by which each of its tasks and groups counts in the mean."""
NAME = "accuracy"


def averages(groups: Mapping[str, Any], metrics: Sequence[Metric]) -> Iterator[Metric]:
    """Yield the mean of each group that names its parts, if all of them were measured; without one there is no mean.

    Each part has the same weight, however many documents it has. The documents of each task are a stratum, the standard
    error is that over the documents within the tasks, and the floor is the mean of the floors.

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
        stderr = None if None in errors else math.hypot(*filter(None, errors)) / len(parts)
        details = stratified(parts, [1 / len(parts)] * len(parts))
        if details:
            _, stderr = mean_and_error(details["documents"], details["strata"])
        yield Metric(
            task=name,
            name=NAME,
            value=sum(part.value for part in parts) / len(parts),
            stderr=stderr,
            floor=None if None in floors else sum(filter(None, floors)) / len(parts),
            members=tuple(inside),
            **details,
        )


def stratified(parts: Sequence[Metric], weights: Sequence[float]) -> dict[str, Any]:
    """Return the documents of an average, in strata, with their hashes; nothing unless they are known of every part.

    Args:
        parts: The metrics that are averaged. The strata of a part that is an average itself are those of the whole.
        weights: The weight of each part.
    """
    if any(not part.documents for part in parts):
        return {}
    strata = _with_pairs(
        Stratum(stratum.documents, weight * stratum.weight)
        for part, weight in zip(parts, weights, strict=True)
        for stratum in part.strata or [Stratum(len(part.documents or ()), 1.0)]
    )
    hashes = tuple(chain.from_iterable(part.hashes or () for part in parts))
    answers = tuple(chain.from_iterable(part.answers or () for part in parts))
    documents = tuple(chain.from_iterable(part.documents or () for part in parts))
    return {
        "documents": documents,
        "hashes": hashes if len(hashes) == len(documents) else None,
        "answers": answers if len(answers) == len(documents) else None,
        "strata": strata,
    }


def _with_pairs(strata: Iterable[Stratum]) -> tuple[Stratum, ...]:
    """Join neighbouring strata of a single document, which have no error of their own, if they have the same weight.

    The spread between tasks then counts as well, so that the error is rather too large (collapsed strata, Cochran 1977,
    5A.12).
    """
    joined: list[Stratum] = []
    for stratum, same in groupby(strata):
        run = list(same)
        joined += [Stratum(len(run), len(run) * stratum.weight)] if stratum.documents == 1 else run
    return tuple(joined)


def weighted(parts: Sequence[Metric], value: float) -> list[float] | None:
    """Return the weights by which the average of tasks is the given value: equal, or by documents; None if neither."""
    counts = [part.count or 0 for part in parts]
    for weights in ([1 / len(parts)] * len(parts), [count / max(sum(counts), 1) for count in counts]):
        mean = math.fsum(weight * part.value for weight, part in zip(weights, parts, strict=True))
        if math.isclose(mean, value, abs_tol=1e-9):
            return weights
    return None

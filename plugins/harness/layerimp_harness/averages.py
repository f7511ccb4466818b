"""The metrics of groups: lm-eval's own aggregations, and the mean accuracy over different metrics of papers."""

from __future__ import annotations

import math
from itertools import chain, groupby
from numbers import Real
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
        inside = [task.task_name for task in group.get_all_tasks()] + [inner.name for inner in group.get_all_groups()]
        errors, floors = [part.stderr for part in parts], [part.floor for part in parts]
        stderr = None if None in errors else math.hypot(*filter(None, errors)) / len(parts)
        details = stratified(parts, [1 / len(parts)] * len(parts), apart=True)
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


def details_of(
    group: Any,
    key: str,
    values: Mapping[str, Any],
    floors: Mapping[str, Any],
    rows: Mapping[str, Mapping[str, Any]],
    measured: Mapping[tuple[str, str], Metric],
) -> dict[str, Any]:
    """Return a group metric's floor, members and documents; no documents if the metric is no mean of its tasks'.

    Args:
        group: lm-eval's group.
        key: lm-eval's name of the metric, with the filter.
        values: The metrics of the group.
        floors: The floors of the group.
        rows: lm-eval's results of each task.
        measured: The metrics of tasks, by task and key.
    """
    inside = [task.task_name for task in group.get_all_tasks()]
    parts = [metric for (task, own), metric in measured.items() if own == key and task in inside]
    groups_inside = tuple(inner.name for inner in group.get_all_groups())
    details: dict[str, Any] = {"members": (*(part.task for part in parts), *groups_inside)}
    value, floor = values[key], floors.get(key)
    if isinstance(floor, Real) and not math.isnan(floor):
        details["floor"] = float(floor)
    if parts and isinstance(value, Real):
        weights = _weights(group, key, [rows[part.task]["sample_len"] for part in parts])
        mean = math.fsum(weight * part.value for weight, part in zip(weights, parts, strict=True))
        if math.isclose(mean, value, abs_tol=1e-9):
            details |= stratified(parts, weights)
    return details


def stratified(parts: Sequence[Metric], weights: Sequence[float], *, apart: bool = False) -> dict[str, Any]:
    """Return the documents of an average, in strata, with their hashes; nothing unless they are known of every part.

    Args:
        parts: The metrics that are averaged. The strata of a part that is an average itself are those of the whole.
        weights: The weight of each part.
        apart: Whether a model may know one part and nothing of another.
    """
    if any(not part.documents for part in parts):
        return {}
    strata = _with_pairs(
        Stratum(stratum.documents, weight * stratum.weight, *((part.task, part.floor) if apart else ()))
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
        if stratum.documents == 1:
            run = [stratum._replace(documents=len(run), weight=len(run) * stratum.weight)]
        joined += run
    return tuple(joined)


def _weights(group: Any, key: str, sizes: Sequence[int]) -> list[float]:
    """Return the weight of each task in a group's metric: equal or by documents, as the group's configuration says.

    Args:
        group: lm-eval's group.
        key: lm-eval's name of the metric, with the filter.
        sizes: The number of documents of each task that has the metric.
    """
    name, _, chosen = key.rpartition(",")
    *_, last = (  # of two entries for the same metric, lm-eval keeps the result of the last one
        entry
        for entry in group.aggregate_metric_list
        if entry.metric == name and (entry.filter_list is None or chosen in entry.filter_list)
    )
    counts = sizes if last.weight_by_size else [1] * len(sizes)
    return [count / sum(counts) for count in counts]

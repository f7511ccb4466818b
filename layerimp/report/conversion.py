"""Converts the results of a run to the JSON documents that `report.documents` declares."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from layerimp.report.documents import (
    Measured,
    Measurements,
    Plan,
    PlanFile,
    Removal,
    Repaired,
    Retained,
    Scorer,
    Scores,
    Target,
)
from layerimp.report.json_types import Number
from layerimp.report.search_documents import Search, Share
from layerimp.report.statistics.intervals import times_stderr
from layerimp.sizes.targets import UNITS

if TYPE_CHECKING:
    from pathlib import Path

    from layerimp.evaluator import Metric
    from layerimp.healer import Repair
    from layerimp.pruner import PrunePlan
    from layerimp.report.healing import Healing
    from layerimp.report.search import Search as Searched
    from layerimp.report.statistics.comparison import Comparison
    from layerimp.report.statistics.paired_bootstrap import Estimate
    from layerimp.report.statistics.retained import Retained as Known
    from layerimp.scorer import Importance
    from layerimp.sizes.targets import Reached


def scores(importance: Importance) -> Scores:
    """Convert the result of a scorer."""
    entry: Scores = {
        "scores": importance.scores,
        "columns": dict(importance.columns),
        "notes": list(importance.notes),
    }
    if list(importance.blocks) != list(range(len(importance.scores))):
        entry["blocks"] = list(importance.blocks)
    if importance.spans:
        entry["spans"] = {str(length): list(spans) for length, spans in importance.spans.items()}
    return entry


def targets(reached: Mapping[str, Sequence[Reached]]) -> dict[str, Target]:
    """Convert the targets and the values that each pruned model reaches, by label."""
    found: dict[str, Target] = {}
    for label, all_of_it in reached.items():
        for one in all_of_it:
            entry: Target = {
                "asked": one.target.asked,
                "unit": UNITS[one.target.quantity],
                "limit": one.limit,
                "original": one.original,
                "reached": {},
            }
            found.setdefault(one.target.quantity, entry)["reached"][label] = {
                "value": one.value,
                "stderr": one.stderr,
                "one_less": one.less,
                "one_more": one.more,
            }
    return found


def scorer(
    importance: Importance | None,
    plan: PrunePlan | None,
    checkpoint: Path | None,
    healed: Mapping[str, tuple[Healing, Path | None]],
) -> Scorer | Removal:
    """Convert the result of a scorer, the plan made by it, and the healed models, each with its checkpoint."""
    removal: Removal = {}
    if plan is not None:
        removal = {"removed": plan.blocks, "checkpoint": None if checkpoint is None else str(checkpoint)}
    if healed:
        removal["healed"] = {
            label: {
                **repaired(one.repairs, one.loss, one.accuracy, one.recovered),
                "checkpoint": None if place is None else str(place),
            }
            for label, (one, place) in healed.items()
        }
    return removal if importance is None else {**scores(importance), **removal}


def repaired(
    repairs: Sequence[Repair], loss: Mapping[str, float], accuracy: Mapping[str, float], recovered: float | None
) -> Repaired:
    """Convert what a healer did, and the effect of healing."""
    return {
        "gaps": [
            {
                "gap": str(one.gap),
                "removed": one.gap.steps,
                "done": one.done,
                "why": one.why,
                "numbers": dict(one.numbers),
            }
            for one in repairs
        ],
        "loss": dict(loss),
        "accuracy": dict(accuracy) or None,
        "recovered": finite(recovered),
    }


def plan(made: PrunePlan) -> Plan:
    """Convert a plan."""
    return {
        "schema_version": "layerimp.plan/2",
        "num_blocks": made.num_blocks,
        "blocks": made.blocks,
        "reason": made.reason,
        "scorer": made.scorer,
        "pruner": made.pruner,
        "model": made.model,
        "nested": made.nested,
    }


def plan_file(plans: Mapping[str, PrunePlan], baselines: Collection[str] = ()) -> PlanFile:
    """Make the content of a file of plans. Those of baselines are separate, since applying the file skips them."""
    written = {label: plan(made) for label, made in plans.items()}
    apart = {label: written.pop(label) for label in baselines if label in written}
    file: PlanFile = {"schema_version": "layerimp.plans/2", "plans": written}
    if apart:
        file["baselines"] = apart
    return file


def by_task(metrics: Iterable[Metric]) -> dict[str, dict[str, Measured]]:
    """Convert metrics, by task and name."""
    tasks: dict[str, dict[str, Measured]] = {}
    for metric in metrics:
        low, high = metric.ends(times_stderr(metric.count)) or (None, None)
        tasks.setdefault(metric.task, {})[metric.name] = {
            "value": finite(metric.value),
            "stderr": finite(metric.stderr),
            "low": finite(low),
            "high": finite(high),
            "documents": metric.count,
            "higher_is_better": metric.higher_is_better,
        }
    return tasks


def compared(found: Comparison) -> Measurements:
    """Convert a comparison of pruned models."""
    best: dict[str, dict[str, list[str]]] = {}
    for (task, name), labels in found.best.items():
        best.setdefault(task, {})[name] = [label for label in found.labels if label in labels]
    kept = retained({label: found.retained[label] for label in found.labels})
    return {
        "retained": kept["retained"],
        "retained_likelihood": kept["retained_likelihood"],
        "retained_accuracy": kept["retained_accuracy"],
        "retained_worst": kept["retained_worst"],
        "comparison": {
            "order": list(found.labels),
            "best": best,
            "best_retained": [label for label in found.labels if label in found.best_retained],
        },
        "notes": list(found.notes),
    }


def retained(found: Mapping[str, Known]) -> Retained:
    """Convert what models retain, by label."""
    return {
        "retained": {label: {task: mean(one) for task, one in each.tasks.items()} for label, each in found.items()},
        "retained_likelihood": {label: mean(each.likelihood) for label, each in found.items()},
        "retained_accuracy": {label: mean(each.accuracy) for label, each in found.items()},
        "retained_worst": {label: mean(each.worst) for label, each in found.items()},
    }


def mean(estimate: Estimate | None) -> Number:
    """Convert a figure over its repeats to a plain number."""
    return None if estimate is None else finite(estimate.mean)


def search(found: Searched) -> Search:
    """Convert a search for the most blocks that may be removed."""
    return {
        "keep": found.keep,
        "measured_on": list(found.measured_on),
        "held_out": found.held_out,
        "order": found.order,
        "removable": {
            label: {
                "count": one.count,
                "blocks": [] if one.plan is None else one.plan.blocks,
                "retained": share(None if one.last is None else one.last.searched),
                "confirmed": share(None if one.last is None else one.last.confirmed),
                "before_confirmation": one.first,
                "tried": [
                    {"count": each.count, "retained": share(each.searched), "confirmed": share(each.confirmed)}
                    for each in one.tried
                ],
            }
            for label, one in found.removable.items()
        },
    }


def share(estimate: Estimate | None) -> Share | None:
    """Convert what one model retains, with the standard error."""
    return None if estimate is None else {"mean": finite(estimate.mean), "stderr": finite(estimate.error)}


def costs(metrics: Iterable[Metric]) -> dict[str, Number]:
    """Convert costs by name, with their standard errors."""
    values = {metric.name: finite(metric.value) for metric in metrics}
    errors = {f"{metric.name}_stderr": finite(metric.stderr) for metric in metrics if metric.stderr is not None}
    return values | errors


def finite(value: float | None) -> Number:
    """Return a number that JSON can hold: an infinite perplexity becomes null."""
    return value if value is not None and math.isfinite(value) else None

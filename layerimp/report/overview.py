"""A report as one table: a row for each model, or for each scored step if nothing was removed or measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from layerimp._table import Column, Table
from layerimp.defaults import ORIGINAL
from layerimp.models.origin import model_name
from layerimp.report import cuts
from layerimp.report.documents import Report, Scores
from layerimp.steps import Step, sublayers_of


def overview(report: Report) -> Table:
    """Return the table of the models (the intact one first) with sizes and metrics, or else the table of the scores."""
    if "parameters" not in report and "metrics" not in report:
        return _scores(report)
    labels = _labels(report)
    rows = [ORIGINAL, *labels]
    columns = [Column("model", rows if labels else [model_name(report["model"])])]
    if labels:
        columns.append(Column("removed", ["", *(cuts.ranges(_removed(report, label)) for label in labels)]))
    if "parameters" in report:
        sizes = {ORIGINAL: report["parameters"]["original"], **report["parameters"]["pruned"]}
        columns.append(Column("parameters", [sizes[label] for label in rows]))
    if "retained_worst" in report:
        kept = report["retained_worst"]
        columns.append(Column("retained", [kept.get(label) for label in rows], form=".1%"))
    return Table([*columns, *_measured(report, rows)], f"{report['model']}, {report['num_blocks']} blocks")


def _labels(report: Report) -> Sequence[str]:
    """Return the labels of the pruned models, ordered by what they retain if that is known."""
    if "comparison" in report:
        return report["comparison"]["order"]
    return list(report["parameters"]["pruned"]) if "parameters" in report else []


def _removed(report: Report, label: str) -> Sequence[Step]:
    """Return the steps that were removed from a model; its label is SCORER or SCORER+HEALER."""
    if "search" in report:
        return report["search"]["removable"][label]["blocks"]
    everything = report.get("scorers", {}) | report.get("baselines", {})
    return everything[label.partition("+")[0]].get("removed", [])


def _measured(report: Report, rows: Sequence[str]) -> list[Column]:
    """Return a column for each metric: quality first, then cost."""
    columns = []
    metrics = report.get("metrics", {})
    for task, names in metrics.get(ORIGINAL, {}).items():
        for name in names:
            found = [metrics.get(label, {}).get(task, {}).get(name) for label in rows]
            errors = [None if one is None else one["stderr"] for one in found]
            values = [None if one is None else one["value"] for one in found]
            columns.append(Column(f"{task} {name}", values, errors if any(errors) else ()))
    costs = report.get("footprint", {})
    for name in costs.get(ORIGINAL, {}):
        if not name.endswith("_stderr"):
            values = [costs.get(label, {}).get(name) for label in rows]
            errors = [costs.get(label, {}).get(f"{name}_stderr") for label in rows]
            columns.append(Column(name, values, errors if any(errors) else ()))
    return columns


def _scores(report: Report) -> Table:
    """Return the scores of all scorers, with a row for each step that any of them scored."""
    entries = cast("dict[str, Scores]", report.get("scorers", {}) | report.get("baselines", {}))
    found: dict[str, dict[Step, float]] = {}
    for label, entry in entries.items():
        steps = entry.get("blocks", list(range(len(entry["scores"]))))
        found[label] = dict(zip(steps, entry["scores"], strict=True))
    steps = sorted({step for scores in found.values() for step in scores}, key=sublayers_of)
    head = "block" if all(isinstance(step, int) for step in steps) else "step"
    columns = [Column(label, [scores.get(step) for step in steps]) for label, scores in found.items()]
    return Table([Column(head, steps), *columns], f"{report['model']}, {report['num_blocks']} blocks")

"""How small a difference between methods the panel can show: from `shrink.jsonl`, and the spread in `choices.jsonl`.

Everything is in mean accuracy over the tasks of which the intact model knows something, and in what is retained, which
is this accuracy above the floor as a share of the intact model's. Errors fall with the square root of the number of
documents.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass

import chosen
from choice_tables import Table
from titles import DIRECTORIES, TITLES

DATA = chosen.DATA.with_name("shrink.jsonl")
PANEL = "zero-shot"
SEEN = 2.8
"""How many standard errors a true difference has to be for 80 % of comparisons at the 5 % level to see it."""
DOCUMENTS = (100, 300, 1000)
DRAWS = (1, 2, 5)


@dataclass(frozen=True)
class Panel:
    """What the panel measured of a model.

    Attributes:
        documents: How many documents of each task.
        above: How far the intact model is above the floor, in mean accuracy.
        error: The standard error of its mean accuracy.
        paired: The standard error of what a small model retains, from the same documents; the mean over small models.
    """

    documents: int
    above: float
    error: float
    paired: float


def measured() -> Iterator[tuple[str, Panel]]:
    """Yield each model that was measured on the panel."""
    known: dict[tuple[str, int], list[Panel]] = {}
    for line in map(json.loads, DATA.read_text(encoding="utf-8").splitlines()):
        report = line.get("report") or {"tasks": ()}
        for task in report["tasks"]:
            if task["task"] == PANEL and task["retained"] and (limit := report["recipe"]["limit"]):
                counted = [part for part in task["intact"]["parts"].values() if not part["at_floor"]]
                above = statistics.mean(part["value"] - part["floor"] for part in counted)
                error = math.hypot(*(part["stderr"] for part in counted)) / len(counted)
                panel = Panel(limit, above, error, task["retained"]["stderr"])
                known.setdefault((DIRECTORIES.get(line["model"], line["model"]), limit), []).append(panel)
    for (model, limit), panels in known.items():
        first = panels[0]
        yield model, Panel(limit, first.above, first.error, statistics.mean(panel.paired for panel in panels))


def spread(model: str) -> float | None:
    """Return the standard deviation of what is retained over draws, pooled over the methods; None if not known."""
    if model not in chosen.largest():
        return None
    _, methods = chosen.largest()[model]
    known = [chosen.values(lines, "healed", "retained") for lines in methods.values()]
    variances = [(len(draws) - 1, statistics.variance(draws)) for draws in known if len(draws) > 1]
    freedom = sum(number for number, _ in variances)
    return math.sqrt(sum(number * variance for number, variance in variances) / freedom) if freedom else None


def table() -> Table:
    """Return a row for each model and number of documents: the smallest difference that is mostly seen."""
    rows = []
    for model, panel in measured():
        wide = spread(model)
        for number in DOCUMENTS:
            scale = math.sqrt(panel.documents / number)
            error, paired = scale * panel.error, scale * panel.paired
            apart = SEEN * math.sqrt(2) * error
            seen = [_both(apart, apart / panel.above), _both(SEEN * paired * panel.above, SEEN * paired)]
            for draws in DRAWS:
                whole = None if wide is None else SEEN * math.hypot(paired, wide * math.sqrt(2 / draws))
                seen.append("–" if whole is None else f"{100 * whole:.0f}")
            rows.append([TITLES.get(model, model), str(number), f"{100 * error:.2f}", *seen])
    heads = [f"paired, {number} draw{'s' * (number > 1)}" for number in DRAWS]
    return ["model", "documents a task", "standard error", "unpaired", "paired", *heads], rows


def _both(accuracy: float, retained: float) -> str:
    """Show a difference in points of mean accuracy, and in points of what is retained."""
    return f"{100 * accuracy:.1f} ({100 * retained:.0f})"

"""The figure of what training recovers by time: a line for each model, from the results of a benchmark.

The results are those of `benchmarks/training.py`, and lie in `benchmarks/results/training.jsonl`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pages
from dressing import dress
from matplotlib.figure import Figure

from layerimp.report.page.curves import drawn, looks

DATA = pages.ROOT / "benchmarks" / "results" / "training.jsonl"
SHOWN = {
    ("starter", "long"): "starter",
    ("smollm2", "steady"): "SmolLM2-135M",
    ("gemma3", "divergence"): "Gemma 3 270M",
    ("sst2", "steady"): "MiniLM (accuracy)",
}
"""The names of the curves that are drawn, by model and way to train."""
WIDTH, HEIGHT = 720, 320


def results() -> list[dict[str, Any]]:
    """Return the curves of the benchmark, as they were written."""
    return [json.loads(line) for line in DATA.read_text(encoding="utf-8").splitlines()]


def recovered(line: dict[str, Any], point: dict[str, Any]) -> float:
    """Return the share of the lost loss that a point of a curve recovers, or of a classifier's lost accuracy."""
    field = "accuracy" if line["intact"]["accuracy"] else "losses"
    intact, pruned, found = (sum(one[field]) for one in (line["intact"], line["pruned"], point))
    return float((pruned - found) / (pruned - intact))


def lines() -> Iterator[tuple[str, list[float], list[float]]]:
    """Yield the name of each model, the minutes of training, and the recovered shares."""
    for line in results():
        if name := SHOWN.get((line["model"], line["way"])):
            points = [point for point in line["curve"] if point["steps"]]
            yield name, [one["minutes"] for one in points], [recovered(line, one) for one in points]


def picture() -> str:
    """Draw the figure."""
    found = list(lines())
    styles = looks([name for name, _, _ in found], ())
    figure = Figure(figsize=(WIDTH / 72, HEIGHT / 72), dpi=72)
    axes = figure.add_axes((0.08, 0.15, 0.74, 0.75))
    for name, minutes, shares in found:
        look = styles[name]
        axes.plot(minutes, shares, color=look.colour, linestyle=look.dashes, marker=look.marker, linewidth=1.8)
        axes.annotate(
            name, (minutes[-1], shares[-1]), (10, 0), textcoords="offset points", color=look.colour, va="center"
        )
    axes.set_xscale("log")
    axes.set_ylim(0, 1)
    axes.set_xticks([0.3, 1, 3, 10, 30], ["0.3", "1", "3", "10", "30"])
    axes.set_xticks([], minor=True)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    dress(axes, "minutes of training", "recovered")
    return str(drawn(figure, "training", "What training recovers, by minutes and model"))

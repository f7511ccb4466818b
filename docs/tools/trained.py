"""The figure and the table of what training recovers, from the results of a benchmark.

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
NAMES = {"smollm2": "SmolLM2-135M", "gemma3": "Gemma 3 270M", "starter": "starter", "sst2": "MiniLM on SST-2"}
"""The names of the models, in the order of the table."""
LIMITS = frozenset({"minutes", "steps", "checks"})
"""Options that say only how long a training took."""
FLOOR = 444 / 872
"""The accuracy on the validation split of SST-2 of a classifier that knows only its most frequent label."""
CONTROL = "control"
"""The way that trains the intact model: what it recovers is what it gains, as a share of what the removal costs."""


def results() -> list[dict[str, Any]]:
    """Return the curves of the benchmark, as they were written."""
    return [json.loads(line) for line in DATA.read_text(encoding="utf-8").splitlines()]


def recovered(line: dict[str, Any], point: dict[str, Any]) -> float:
    """Return the share of the lost loss that a point of a curve recovers, or of a classifier's lost accuracy."""
    field = "accuracy" if line["intact"]["accuracy"] else "losses"
    intact, pruned, reached = (sum(outcome[field]) for outcome in (line["intact"], line["pruned"], point))
    return float((pruned - reached) / (pruned - intact))


def lines() -> Iterator[tuple[str, list[float], list[float]]]:
    """Yield the name of each model, the minutes of training, and the recovered shares."""
    for line in results():
        if name := SHOWN.get((line["model"], line["way"])):
            points = [point for point in line["curve"] if point["steps"]]
            yield name, [point["minutes"] for point in points], [recovered(line, point) for point in points]


def table() -> tuple[list[str], list[list[str]]]:
    """Return the head and the rows: each training, by model, by what went, and from the shortest to the longest."""
    order = list(NAMES)
    trainings = sorted(
        results(), key=lambda line: (order.index(line["model"]), line["blocks"], line["curve"][-1]["minutes"])
    )
    return ["model", "without", "options", "minutes", "tokens", "recovered", "likelihood left"], list(
        map(_row, trainings)
    )


def _row(line: dict[str, Any]) -> list[str]:
    last = line["curve"][-1]
    options = [f"`{name}={value}`" for name, value in sorted(line["options"].items()) if name not in LIMITS]
    intact = line["way"] == CONTROL
    return [
        NAMES[line["model"]],
        "none" if intact else line["blocks"].replace(",", ", "),
        ", ".join(options),
        f"{last['minutes']:.0f}",
        f"{last['tokens']:,}",
        f"{recovered(line, last) - intact:.1%}",
        f"{retained(line, line['intact' if intact else 'pruned']):.1%} → {retained(line, last):.1%}",
    ]


def retained(line: dict[str, Any], point: dict[str, Any]) -> float:
    """Return the share that a point of a curve retains: of the loss, or of a classifier's accuracy, beyond chance."""
    field = "accuracy" if line["intact"]["accuracy"] else "losses"
    intact, reached = (sum(outcome[field]) for outcome in (line["intact"], point))
    chance = sum(line["chance"]) if field == "losses" else FLOOR
    return float((chance - reached) / (chance - intact))


def picture() -> str:
    """Draw the figure."""
    curves = list(lines())
    styles = looks([name for name, _, _ in curves], ())
    figure = Figure(figsize=(WIDTH / 72, HEIGHT / 72), dpi=72)
    axes = figure.add_axes((0.08, 0.15, 0.74, 0.75))
    for name, minutes, shares in curves:
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

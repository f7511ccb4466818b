"""What `linear` brings back: a table of all models, and a figure with each method, from `chosen.py`."""

from __future__ import annotations

from statistics import fmean, median
from typing import Any

import chosen
from choices import METHODS
from chosen import BASELINES, MEASURES, STATES, Methods, values
from dressing import SMALL, dress, standalone
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from layerimp.report.page.curves import ACCENT, INK, MUTED, PAPER, drawn

WIDTH, ROW, TOP, BOTTOM, LEFT, GAP, RIGHT = 860, 22, 60, 52, 146, 18, 10
"""In pixels: the picture, a row, and what lies around and between its panels."""
STYLES: dict[str, dict[str, Any]] = {
    "unhealed": {"color": MUTED, "marker": "o"},
    "healed": {"color": ACCENT, "marker": "s"},
    "trained": {"color": INK, "marker": "^"},
}
_EDGE: dict[str, Any] = {"linestyle": "", "markersize": 7, "markeredgecolor": PAPER, "markeredgewidth": 0.8}


def table() -> tuple[list[str], list[list[str]]]:
    """Return how models do unhealed and healed, over all methods that look at the model: the middle and the best."""
    rows = []
    for (model, count), methods in chosen.cells().items():
        name = chosen.judged_by(model, methods)[0]
        best = max if MEASURES[name].factor > 0 else min
        pairs = [
            [fmean(known) for state in STATES[:2] if (known := values(lines, state, name))]
            for method, lines in methods.items()
            if method not in BASELINES
        ]
        both = [pair for pair in pairs if len(pair) == len(STATES[:2])]
        ends = [
            " → ".join(MEASURES[name].show(figure(end)) for end in zip(*both, strict=True)) for figure in (median, best)
        ]
        rows.append([chosen.title(model, count), name, str(len(both)), *ends])
    return ["removed", "measure", "methods", "median, unhealed → healed", "best, unhealed → healed"], rows


def picture() -> str:
    """Draw how far the models of each method are from the intact one: a panel for each model, at the most blocks."""
    models = chosen.largest()
    names = [name for name in METHODS if any(name in methods for _, methods in models.values())]
    every = [lines for _, methods in models.values() for lines in methods.values()]
    known = {state: [far for lines in every for far in values(lines, state, "divergence")] for state in STATES}
    ends = 0.8 * min(map(min, filter(None, known.values()))), 1.25 * max(map(max, filter(None, known.values())))
    height = TOP + ROW * len(names) + BOTTOM
    figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72)
    wide = (WIDTH - LEFT - RIGHT - GAP * (len(models) - 1)) / len(models)
    for n, (model, (count, methods)) in enumerate(models.items()):
        corner = (LEFT + n * (wide + GAP)) / WIDTH, BOTTOM / height
        axes = figure.add_axes((*corner, wide / WIDTH, ROW * len(names) / height))
        _panel(axes, methods, names, chosen.title(model, count), ends)
        axes.set_yticks(range(len(names)), names if n == 0 else [""] * len(names))
    for n, state in enumerate(state for state in STATES if known[state]):
        across, up = LEFT + 110 * n, 1 - 16 / height
        figure.add_artist(Line2D([across / WIDTH], [up], **_EDGE, **STYLES[state]))
        words: dict[str, Any] = {"color": STYLES[state]["color"], "fontsize": SMALL, "va": "center_baseline"}
        figure.text((across + 12) / WIDTH, up, state, **words)
    middle = (LEFT + WIDTH - RIGHT) / 2 / WIDTH
    figure.text(middle, 10 / height, "divergence, nats", color=MUTED, fontsize=SMALL, ha="center")
    return standalone(str(drawn(figure, "healed", "Divergence by model and method, unhealed and healed")))


def _panel(axes: Axes, methods: Methods, names: list[str], title: str, ends: tuple[float, float]) -> None:
    """Draw a model: for each method a line from state to state, the smallest divergence to the left."""
    dress(axes, "", title)
    axes.grid(axis="x", color=MUTED, linewidth=0.3)
    axes.set(xscale="log", xlim=ends, ylim=(len(names) - 0.5, -0.5))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    for row, name in enumerate(names):
        lines = methods.get(name, ())
        means = {state: fmean(known) for state in STATES if (known := values(lines, state, "divergence"))}
        axes.plot(list(means.values()), [row] * len(means), color=MUTED, linewidth=1)
        for state, mean in means.items():
            axes.plot([mean], [row], **_EDGE, **STYLES[state])

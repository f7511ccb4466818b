"""The figure of "Which metric": its table as a map."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import chosen
from choices import METHODS
from chosen import STATES, Lines, Methods, values
from dressing import SMALL, standalone
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from layerimp.report.page.curves import ACCENT, INK, MUTED, PAPER, drawn

WIDTH, ROW, TOP, LEFT, GAP = 960, 26, 54, 146, 10
"""In pixels: the figure, a row, and the room above and to the left of the cells and between two models."""


@dataclass(frozen=True)
class Column:
    """A column of cells: its head, and for each method a figure with how full its cell is."""

    head: str
    cells: dict[str, tuple[str, float]]


def columns(model: str, methods: Methods) -> list[Column]:
    """Return the columns of a model: what is retained by state, and beside the panel or for it how near it is."""

    def column(head: str, state: str, name: str, cell: Callable[[float], tuple[str, float]]) -> Column:
        known: dict[str, Lines] = {method: lines for method, lines in methods.items() if values(lines, state, name)}
        return Column(head, {method: cell(fmean(values(lines, state, name))) for method, lines in known.items()})

    def share(mean: float) -> tuple[str, float]:
        return f"{100 * max(mean, 0.0):.0f}", min(max(mean, 0.0), 1.0)

    shown = [column(state, state, "retained", share) for state in STATES]
    if model in chosen.PANEL:
        shown.append(column("diverg.", "healed", "divergence", lambda mean: (f"{mean:.2f}", math.exp(-mean))))
        shown.append(column("copies", "healed", "copying", share))
    return [each for each in shown if each.cells]


def picture() -> str:
    """Draw how each method does on each model: the fuller a cell, the nearer the models are to the intact one."""
    models = {model: (count, columns(model, methods)) for model, (count, methods) in chosen.largest().items()}
    known = list(dict.fromkeys(name for _, shown in models.values() for each in shown for name in each.cells))
    names = [name for name in METHODS if name in known]
    height = TOP + ROW * len(names)
    figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72)
    axes = figure.add_axes((LEFT / WIDTH, 0, 1 - LEFT / WIDTH, 1 - TOP / height))
    axes.set(xlim=(0, WIDTH - LEFT), ylim=(ROW * len(names), 0))
    axes.set_axis_off()
    words: dict[str, Any] = {"fontsize": SMALL, "va": "center", "clip_on": False}
    for row, name in enumerate(names):
        axes.text(-8, (row + 0.5) * ROW, name, color=INK, ha="right", **words)
    head = words | {"color": MUTED, "ha": "center", "fontsize": SMALL - 1.5}
    cell = (WIDTH - LEFT - GAP * (len(models) - 1)) / sum(len(shown) for _, shown in models.values())
    left = 0.0
    for model, (count, shown) in models.items():
        axes.text(left + cell * len(shown) / 2, -40, chosen.title(model, count), color=INK, ha="center", **words)
        for each in shown:
            axes.text(left + cell / 2, -16, each.head, **head)
            for row, name in enumerate(names):
                if name in each.cells:
                    _cell(axes, (left, row * ROW), cell, *each.cells[name])
            left += cell
        left += GAP
    return standalone(str(drawn(figure, "which-metric", "How near models are to the intact one, by method")))


def _cell(axes: Axes, corner: tuple[float, float], wide: float, text: str, full: float) -> None:
    """Draw a cell with its figure."""
    axes.add_patch(Rectangle(corner, wide, ROW, facecolor=ACCENT, alpha=0.75 * full, edgecolor=PAPER, linewidth=2))
    place = corner[0] + wide / 2, corner[1] + ROW / 2
    axes.text(*place, text, color=INK, fontsize=SMALL, ha="center", va="center")

"""What is retained unhealed and healed: a figure of the starter, and a table of all models.

Its numbers are those of the page "Which metric".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from statistics import median
from typing import Any, TypedDict

import metrics_compared
import numpy as np
from dressing import standalone
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from layerimp.defaults import BASELINES
from layerimp.report.page.curves import ACCENT, INK, LINE, MUTED, PAPER, drawn
from layerimp.report.results.measures import Interval
from layerimp.report.statistics import interval

SCORERS = ("block-influence", "avss", "random")
HEALER = metrics_compared.HEALER
WIDTH, HEIGHT, TOP, BOTTOM, LEFT, GAP, RIGHT = 760, 300, 64, 56, 56, 24, 14
"""In pixels: the picture, and what lies around and between its panels."""
_LINES = {"unhealed": "", "healed": f"+{HEALER}"}
"""What the lines of a panel are called, and how their labels in the grid end."""
_STYLES: dict[str, dict[str, Any]] = {
    "unhealed": {"color": MUTED, "linestyle": (0, (5, 2)), "marker": "o"},
    "healed": {"color": ACCENT, "linestyle": "-", "marker": "s"},
}
_EDGE: dict[str, Any] = {"markersize": 6, "markeredgecolor": PAPER, "markeredgewidth": 0.8}


class Measured(TypedDict):
    """What the grid of the starter gave.

    Attributes:
        num_blocks: How many blocks the intact model has.
        retained: By label of the contender and number of removed blocks, the share of the likelihood that the model of
            each draw of text retains.
    """

    num_blocks: int
    retained: dict[str, dict[str, list[float]]]


def known() -> Measured:
    """What was measured last."""
    parts = metrics_compared.results("starter")
    retained: dict[str, dict[str, list[float]]] = {}
    for ending, part in (("", parts["unhealed"]), (f"+{HEALER}", parts["healed"])):
        rows = sorted(part["rows"], key=lambda row: row["removed"])
        for row, scorer in product(rows, SCORERS):
            retained.setdefault(scorer + ending, {})[str(row["removed"])] = row["entries"][scorer + ending][
                "likelihood"
            ]
    return Measured(num_blocks=parts["unhealed"]["num_blocks"], retained=retained)


def table() -> tuple[list[str], list[list[str]]]:
    """Return what methods retain, unhealed and healed, over all of them: the middle one and the best, by model."""
    rows = []
    for name, title in metrics_compared.TITLES.items():
        parts = metrics_compared.results(name)
        choosing = [one for one in metrics_compared.methods(parts) if one.scorer not in BASELINES]
        for removed in metrics_compared.amounts(parts):
            pairs = [(one.retained(removed), one.retained(removed, HEALER)) for one in choosing]
            both = [(before, after) for before, after in pairs if before is not None and after is not None]
            if both:
                ends = [
                    [f"{100 * figure(values):.1f}" for values in zip(*both, strict=True)] for figure in (median, max)
                ]
                shown = [" → ".join(end) for end in ends]
                rows.append([title, f"{removed} of {parts['unhealed']['num_blocks']}", str(len(both)), *shown])
    return ["model", "removed", "methods", "median, unhealed → healed", "best, unhealed → healed"], rows


def picture(found: Measured) -> str:
    """A panel for each scorer, with what is retained unhealed and healed."""
    scorers = [label for label in found["retained"] if "+" not in label]
    figure = Figure(figsize=(WIDTH / 72, HEIGHT / 72), dpi=72)
    wide = (WIDTH - LEFT - RIGHT - GAP * (len(scorers) - 1)) / len(scorers)
    for n, scorer in enumerate(scorers):
        left = LEFT + n * (wide + GAP)
        axes = figure.add_axes((left / WIDTH, BOTTOM / HEIGHT, wide / WIDTH, (HEIGHT - TOP - BOTTOM) / HEIGHT))
        _panel(axes, {name: found["retained"][scorer + ending] for name, ending in _LINES.items()})
        axes.set_title(scorer, fontsize=14, color=INK, loc="left", pad=8, fontweight="bold")
        axes.tick_params(labelleft=n == 0)
    _words(figure, found)
    return standalone(str(drawn(figure, "healed", "What is retained by removed blocks, unhealed and healed")))


def _words(figure: Figure, found: Measured) -> None:
    """What the axes mean, and which line is which."""
    how: dict[str, Any] = {"fontsize": 13, "color": MUTED, "va": "center_baseline"}
    figure.text(8 / WIDTH, 1 - 17 / HEIGHT, "retained", **how)
    below = f"blocks removed, of {found['num_blocks']}"
    figure.text((LEFT + WIDTH - RIGHT) / 2 / WIDTH, 14 / HEIGHT, below, ha="center", **how)
    x = WIDTH - RIGHT - 208
    for name, style in _STYLES.items():
        across, up = [x / WIDTH, (x + 15) / WIDTH, (x + 30) / WIDTH], [1 - 17 / HEIGHT] * 3
        figure.add_artist(Line2D(across, up, linewidth=2, markevery=[1], **_EDGE, **style))
        figure.text((x + 36) / WIDTH, 1 - 17 / HEIGHT, name, **how | {"color": style["color"]})
        x += 118


def _panel(axes: Axes, lines: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """One scorer's lines, with their 95 % intervals over the draws as far as a share reaches."""
    places = [0, *map(int, lines["healed"])]
    axes.patch.set_visible(False)
    axes.set(xlim=(0, places[-1] + 0.15), ylim=(0, 1.02), xticks=places)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(LINE)
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=12.5, labelcolor=MUTED, pad=6)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    for name, line in lines.items():
        spans = [Interval(mean=1.0, low=1.0, high=1.0, count=1), *map(interval, line.values())]
        low, high = np.clip(np.array([(span.low, span.high) for span in spans], dtype=float).T, 0, 1)
        axes.fill_between(places, low, high, color=_STYLES[name]["color"], alpha=0.16, linewidth=0)
        axes.plot(places, [span.mean for span in spans], linewidth=2, zorder=3, **_EDGE, **_STYLES[name])

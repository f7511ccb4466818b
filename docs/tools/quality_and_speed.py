"""The figure of quality against measured speed, from the results of `benchmarks/shrink.py`.

A panel for each model: the intact one, layerimp's smaller ones by minutes of training, 8-bit weights, and other tools.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import shrunk
from dressing import SMALL, dress
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from layerimp.report.page.curves import ACCENT, INK, MUTED, PAPER, drawn

WIDTH, HEIGHT, TOP, BOTTOM, LEFT, RIGHT = 720, 300, 44, 44, 46, 138
"""In pixels: the figure, a row of panels, and the room around the plot of a panel; names stand to its right."""
COLUMNS = 2
APART = 15
"""The least distance between two names, in pixels."""
MARKERS = "o^vPX<>"
"""The markers of what others made."""


@dataclass(frozen=True)
class Point:
    """A smaller model.

    Attributes:
        name: What made it.
        speed: Its tokens per second, as a multiple of the intact model's.
        speed_stderr: The standard error of it.
        retained: What it retains, as a share.
        retained_stderr: The standard error of it.
        ours: Whether layerimp made it.
    """

    name: str
    speed: float
    speed_stderr: float
    retained: float
    retained_stderr: float
    ours: bool


@dataclass(frozen=True)
class Panel:
    """A model, with what the speed is that of, and its smaller models."""

    model: str
    speed: str
    points: list[Point]


def panels() -> list[Panel]:
    """Return the models with several smaller ones whose quality and speed were measured."""
    by_model: dict[str, list[shrunk.Line]] = {}
    for line in shrunk.rows():
        if line.get("retained"):
            by_model.setdefault(shrunk.name_of(line), []).append(line)
    made = [_panel(model, lines) for model, lines in by_model.items()]
    return [panel for panel in made if len(panel.points) > 1]


def _panel(model: str, lines: Sequence[shrunk.Line]) -> Panel:
    """Return a model's panel: speeds are those of decoding, or of prefill for a model that does not write."""
    speed = "decoding" if any(line.get("decoding") for line in lines) else "prefill"
    points = []
    for line in lines:
        if line.get(speed):
            (across, wide), (up, high) = line[speed], line["retained"]
            name = shrunk.maker(line).replace("`", "")
            points.append(Point(name, across, wide or 0.0, up, high or 0.0, shrunk.ours(line)))
    return Panel(model, speed, points)


def picture() -> str:
    """Draw the figure; nothing if no model has enough results."""
    shown = panels()
    if not shown:
        return ""
    markers = markers_of(shown)
    columns = min(COLUMNS, len(shown))
    lines = math.ceil(len(shown) / columns)
    wide, high = WIDTH / columns, HEIGHT * lines
    figure = Figure(figsize=(WIDTH / 72, high / 72), dpi=72)
    for n, panel in enumerate(shown):
        left, top = (n % columns) * wide + LEFT, (n // columns) * HEIGHT + TOP
        across, up = wide - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
        _draw(figure.add_axes((left / WIDTH, 1 - (top + up) / high, across / WIDTH, up / high)), panel, markers)
    return str(drawn(figure, "shrunk", "What is retained by measured speed, for each model and what made it smaller"))


def markers_of(shown: Sequence[Panel]) -> dict[str, str]:
    """Return the marker of each maker but layerimp, the same in all panels."""
    others = dict.fromkeys(each.name for panel in shown for each in panel.points if not each.ours)
    return dict(zip(others, cycle(MARKERS), strict=False))


def _draw(axes: Axes, panel: Panel, markers: Mapping[str, str]) -> None:
    """Draw a panel: points with errors, a line through layerimp's own, and names in a column beside.

    Args:
        axes: Where to draw.
        panel: The smaller models.
        markers: The marker of each maker but layerimp.
    """
    points = panel.points
    low, high = _span([1.0, *(end for each in points for end in _ends(each.speed, each.speed_stderr))])
    bottom = min(0.9, *(each.retained - each.retained_stderr for each in points))
    top = max(1.0, *(each.retained + each.retained_stderr for each in points))
    room = 0.12 * (top - bottom)
    axes.set(xlim=(low, high), ylim=(max(bottom - room, -room), top + 1.6 * room))
    dress(axes, f"tokens per second in {panel.speed}, × intact", f"{panel.model}: retained")
    axes.title.set_color(INK)
    axes.locator_params(axis="both", nbins=5)
    axes.xaxis.set_major_formatter(lambda value, _: f"×{value:.3g}")
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g}%" if value < top + 0.01 else "")
    axes.plot([1], [1], "o", color=INK, markersize=6)
    axes.annotate("intact", (1, 1), (0, 8), textcoords="offset points", ha="center", color=INK, fontsize=SMALL)
    own = [each for each in points if each.ours]
    axes.plot([each.speed for each in own], [each.retained for each in own], color=ACCENT, linewidth=1.6)
    for each in points:
        _mark(axes, each, markers.get(each.name, "s"))
    _name(axes, points)


def _ends(value: float, stderr: float) -> tuple[float, float]:
    return value - stderr, value + stderr


def _span(values: Sequence[float]) -> tuple[float, float]:
    """Return the ends of a scale with room on either side."""
    room = max(0.12 * (max(values) - min(values)), 0.05)
    return min(values) - room, max(values) + room


def _mark(axes: Axes, point: Point, marker: str) -> None:
    colour = ACCENT if point.ours else MUTED
    axes.errorbar(
        point.speed, point.retained, point.retained_stderr, point.speed_stderr,
        fmt=marker, color=colour, markersize=6.5, markeredgecolor=PAPER, markeredgewidth=0.8, elinewidth=1.2,
        zorder=4 if point.ours else 3,
    )  # fmt: skip


def _name(axes: Axes, points: Sequence[Point]) -> None:
    """Write the names in a column to the right, each beside the height of its point, with a thin line to it."""
    how: dict[str, Any] = {"fontsize": SMALL, "va": "center_baseline", "annotation_clip": False}
    (_, below), (end, above) = axes.transAxes.transform([(0, 0), (1, 1)])
    placed = sorted(points, key=lambda each: each.retained)
    wanted = [axes.transData.transform((each.speed, each.retained))[1] for each in placed]
    for each, height in zip(placed, spread(wanted, APART, below, above), strict=True):
        axes.annotate(
            each.name, (each.speed, each.retained), (end + 10, height), textcoords="figure pixels",
            color=ACCENT if each.ours else MUTED, fontweight="bold" if each.ours else "normal",
            arrowprops={"arrowstyle": "-", "color": MUTED, "alpha": 0.5, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 4},
            **how,
        )  # fmt: skip


def spread(wanted: Sequence[float], apart: float, low: float, high: float) -> list[float]:
    """Return places that are at least so far apart, between two ends, and near those that are wanted.

    Args:
        wanted: Places in rising order.
        apart: The least distance of two places.
        low: The lowest place.
        high: The highest place.
    """
    places: list[float] = []
    for place in wanted:
        places.append(max(place, places[-1] + apart if places else low))
    ceiling = high
    for n in reversed(range(len(places))):
        places[n] = min(places[n], ceiling)
        ceiling = places[n] - apart
    return places

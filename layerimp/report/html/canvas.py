"""What the figures of the report are drawn on: a sheet as wide as the reader's screen allows, in pixels."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from layerimp.report.html.svg import INK

SMALL, TEXT = 11.5, 13.0
"""Sizes of type, in pixels."""


@dataclass(frozen=True)
class Sheet:
    """How wide a figure may be, and where the labels of its rows stand.

    Attributes:
        width: In pixels.
        above: Whether each label stands above its row rather than to the left of it.
    """

    width: float
    above: bool

    @property
    def lift(self) -> float:
        """How much higher a row is for its label, in pixels."""
        return 20.0 if self.above else 0.0

    def left(self, labels: Collection[str]) -> float:
        """How much of the width the labels take, in pixels."""
        return 1.0 if self.above else room(labels)


WIDE = Sheet(920, above=False)
NARROW = Sheet(356, above=True)
"""A phone's width without the page's margins."""


def blank(width: float, height: float) -> Figure:
    """A figure of that size, in pixels."""
    return Figure(figsize=(round(width) / 72, round(height) / 72), dpi=72)


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure to draw on in pixels, from the top left."""
    figure = blank(width, height)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, round(width)), ylim=(round(height), 0))
    axes.axis("off")
    return figure, axes


def write(axes: Axes, x: float, y: float, text: str, anchor: str = "left", **how: Any) -> None:
    """Write a text beside a point, centred on it in height."""
    style: dict[str, Any] = {
        "fontsize": TEXT,
        "color": INK,
        "va": "center_baseline",
        "clip_on": False,
        "parse_math": False,
    }
    axes.text(x, y, text, ha=anchor, **style | how)


def box(axes: Axes, x: float, y: float, width: float, height: float, **how: Any) -> None:
    """Draw a filled box from its top left corner."""
    put(axes, Rectangle((x, y), width, height, linewidth=0, clip_on=False, **how))


def put(axes: Axes, artist: Artist) -> None:
    """Put something on a canvas, whose limits are fixed: `plot` and `add_patch` spend most of their time on limits."""
    axes.add_artist(artist)


def short(label: str, most: int = 24) -> str:
    """A long label with its middle left out."""
    return label if len(label) <= most else f"{label[: most - 9]}…{label[-8:]}"


def room(labels: Collection[str]) -> float:
    """How wide the labels are at most, in pixels."""
    return 7.6 * max((len(short(label)) for label in labels), default=0) + 14


def every(names: Collection[str], apart: float) -> int:
    """Of how many names in a line one can be written, when so many pixels lie between two."""
    return max(1, -int(-(7.0 * max(map(len, names), default=0) + 5) // apart))

"""The figures that are made of cells: matrices and grids of dots."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from layerimp.report.html.canvas import SMALL, TEXT, WIDE, Sheet, box, canvas, every, put, room, short, write
from layerimp.report.html.svg import ACCENT, CONTRARY, INK, LINE, MUTED, PAPER, TIP, Look

_ROOM_FOR_TEXT, _ROOM_FOR_SMALL = 26, 56
"""How wide a cell is at least for the text in it, in pixels."""


@dataclass(frozen=True)
class Square:
    """A cell of a matrix.

    Attributes:
        share: How full its colour is, from 0 to 1; below 0 in the contrary colour. None leaves it empty.
        text: What it says.
        small: What it says below; the first word of it where there is no room for more.
        marked: Whether it is crossed.
        tip: What it says when pointed at.
    """

    share: float | None
    text: str = ""
    small: str = ""
    marked: bool = False
    tip: str = ""


def matrix(
    rows: Mapping[str, Sequence[Square]],
    columns: Sequence[str],
    *,
    size: tuple[float, float],
    strength: float,
    legend: Sequence[tuple[Square, str]] = (),
    slanted: bool = False,
    sheet: Sheet = WIDE,
) -> Figure:
    """Draw a matrix of coloured cells. The opacity of a cell is its share times `strength`.

    Args:
        rows: By label.
        columns: Their names; on a sheet with labels above the rows, slanted names become numbers.
        size: Width and height of a cell at most, in pixels.
        strength: The opacity of a cell whose share is 1 or -1, from 0 to 1.
        legend: Cells, and what they mean.
        slanted: Whether the names of the columns are as long as those of the rows.
        sheet: What it is drawn on.
    """
    labels = {label: short(label) for label in rows}
    if slanted and sheet.above:
        labels = {label: f"{n} {short(label)}" for n, label in enumerate(rows, 1)}
        columns, slanted = [str(n) for n in range(1, len(columns) + 1)], False
    left, beyond = sheet.left(rows), 0.55 * room(columns) if slanted else 8
    wide, high = min(size[0], (sheet.width - left - beyond) / max(len(columns), 1)), size[1]
    top = 0.54 * room(columns) + 12 if slanted else 26.0
    row = high + sheet.lift
    lines = _lines(legend, sheet.width - left)
    width = max(left + wide * len(columns) + beyond, left + max((end for *_, end in lines), default=0))
    depth = lines[-1][1] + 34 if lines else 6
    figure, axes = canvas(width, top + row * len(rows) + depth)
    _name_columns(axes, columns, left, wide, top, slanted)
    for line, (label, squares) in enumerate(rows.items()):
        y = top + row * line
        write(axes, 1, y + (sheet.lift or high) / 2, labels[label])
        for n, square in enumerate(squares):
            _square(axes, square, left + wide * n, y + sheet.lift, wide, high, strength)
    for (square, name), (x, y, _) in zip(legend, lines, strict=True):
        _square(axes, square, left + x, top + row * len(rows) + 14 + y, 16, 16, strength)
        write(axes, left + x + 22, top + row * len(rows) + 22 + y, name, fontsize=SMALL, color=MUTED)
    return figure


def _lines(legend: Sequence[tuple[Square, str]], width: float) -> list[tuple[float, float, float]]:
    """Where each entry of a legend begins and ends (x, y, end), in lines of that width."""
    places: list[tuple[float, float, float]] = []
    x = y = 0.0
    for _, name in legend:
        long = 8.2 * len(name) + 40
        if x and x + long > width:
            x, y = 0.0, y + 24
        places.append((x, y, x + long))
        x += long
    return places


def _name_columns(axes: Axes, columns: Sequence[str], left: float, wide: float, top: float, slanted: bool) -> None:
    """Write as many names as there is room for."""
    named = [n for n, name in enumerate(columns) if name]
    apart = wide * (named[1] - named[0]) if len(named) > 1 else wide
    for n in named if slanted else named[:: every(columns, apart)]:
        how: dict[str, Any] = {"rotation": 38, "rotation_mode": "anchor", "va": "baseline"} if slanted else {}
        x, y = left + wide * (n + 0.5), top - (8 if slanted else 12)
        write(axes, x, y, short(columns[n]), "left" if slanted else "center", fontsize=SMALL, color=MUTED, **how)


def _square(axes: Axes, square: Square, x: float, y: float, wide: float, high: float, strength: float) -> None:
    share = square.share or 0.0
    colour, full = (ACCENT if share > 0 else CONTRARY, strength * min(abs(share), 1)) if share else (LINE, 0.3)
    tip = {"gid": TIP + square.tip} if square.tip else {}
    inset = min(1, wide / 12)
    box(axes, x + inset, y + 1, wide - 2 * inset, high - 2, facecolor=colour, alpha=full, **tip)
    middle = x + wide / 2
    if square.text and wide >= _ROOM_FOR_TEXT:
        size = min(TEXT - 0.5, 0.36 * wide)
        write(axes, middle, y + high / 2 - (7 if square.small else 0), square.text, "center", fontsize=size)
    if square.small and wide >= _ROOM_FOR_TEXT:
        small = square.small if wide >= _ROOM_FOR_SMALL else square.small.split()[0]
        write(axes, middle, y + high / 2 + 9, small, "center", fontsize=min(10.5, 0.36 * wide))
    if square.marked:
        arm, centre = min(4, wide / 2 - 0.5), y + high / 2
        thin = arm / 4
        for (colour, weight), slope in product(((PAPER, 4.5 * thin), (INK, 1.8 * thin)), (1, -1)):
            ends = [middle - arm, middle + arm], [centre - slope * arm, centre + slope * arm]
            put(axes, Line2D(*ends, color=colour, linewidth=weight, clip_on=False))


def dots(
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    num_blocks: int,
    styles: Mapping[str, Look],
    sheet: Sheet = WIDE,
) -> Figure:
    """For each panel the share of repeats in which each scorer removes each block, as the areas of dots."""
    labels = {label for panel in panels.values() for label in panel}
    left, row, head = sheet.left(labels), 22.0 + sheet.lift, 76.0
    cell = min(52.0, (sheet.width - left - 10) / num_blocks)
    height = sum(head + row * len(panel) for panel in panels.values())
    figure, axes = canvas(left + cell * num_blocks + 10, height - 16)
    y, radius = -22.0, min(cell, 22.0) * 0.42
    numbers = [str(block) for block in range(num_blocks)]
    for title, panel in panels.items():
        write(axes, 1, y + 34, title, fontweight="bold")
        for block in range(0, num_blocks, every(numbers, cell)):
            x = left + cell * (block + 0.5)
            write(axes, x, y + 62, numbers[block], "center", fontsize=SMALL - 0.5, color=MUTED)
        y += head
        for label, shares in panel.items():
            write(axes, 1, y + (sheet.lift or row) / 2, short(label))
            middle = y + sheet.lift + 11
            places = [left + cell * (block + 0.5) for block in range(num_blocks)]
            empty = [place for place, share in zip(places, shares, strict=True) if not share]
            _dots(axes, empty, middle, 1.4, LINE)
            for block, share in enumerate(shares):
                if share:
                    tip = f"{label}, block {block}: {share:.0%} removed"
                    full = max(radius * math.sqrt(share), 2.2)
                    _dots(axes, places[block : block + 1], middle, full, styles[label].colour, gid=TIP + tip)
            y += row
    return figure


def _dots(axes: Axes, places: Sequence[float], y: float, radius: float, colour: str, **how: Any) -> None:
    """Dots of one size in a row; as markers, whose shape the picture holds but once."""
    style: dict[str, Any] = {"markersize": 2 * radius, "markeredgewidth": 0, "linestyle": "", "clip_on": False}
    put(axes, Line2D(places, [y] * len(places), marker="o", color=colour, **style | how))

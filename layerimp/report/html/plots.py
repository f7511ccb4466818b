"""The kinds of plots in the report."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from layerimp.report.html.svg import ACCENT, CONTRARY, INK, LINE, MUTED, PAPER, TIP, Look
from layerimp.report.removable import Level
from layerimp.report.statistics import Interval
from layerimp.report.tables import removable_at

SMALL, TEXT = 11.5, 13.0
"""Sizes of type, in pixels."""


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(round(width) / 72, round(height) / 72), dpi=72)


def _canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure to draw on in pixels, from the top left."""
    figure = _figure(width, height)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, round(width)), ylim=(round(height), 0))
    axes.axis("off")
    return figure, axes


def _write(axes: Axes, x: float, y: float, text: str, anchor: str = "left", **how: Any) -> None:
    style: dict[str, Any] = {
        "fontsize": TEXT,
        "color": INK,
        "va": "center_baseline",
        "clip_on": False,
        "parse_math": False,
    }
    axes.text(x, y, text, ha=anchor, **style | how)


def _box(axes: Axes, x: float, y: float, width: float, height: float, **how: Any) -> None:
    axes.add_patch(Rectangle((x, y), width, height, linewidth=0, clip_on=False, **how))


def _short(label: str, most: int = 24) -> str:
    """A long label with its middle left out."""
    return label if len(label) <= most else f"{label[: most - 9]}…{label[-8:]}"


def _room(labels: Collection[str]) -> float:
    """How wide the labels are at most, in pixels."""
    return 7.6 * max((len(_short(label)) for label in labels), default=0) + 14


@dataclass(frozen=True)
class Square:
    """A cell of a matrix.

    Attributes:
        share: How full its colour is, from 0 to 1; below 0 in the contrary colour. None leaves it empty.
        text: What it says.
        small: What it says below.
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
) -> Figure:
    """A matrix of coloured cells, of which the fullest have so much of the colour's strength."""
    wide, high = size
    left, top = _room(rows), 0.54 * _room(columns) + 12 if slanted else 26.0
    bottom = 34 if legend else 6
    beyond = 0.55 * _room(columns) if slanted else 8
    names = sum(8.2 * len(name) + 40 for _, name in legend)
    width = max(left + wide * len(columns) + beyond, left + names if legend else 0)
    figure, axes = _canvas(width, top + high * len(rows) + bottom)
    for n, name in enumerate(columns):
        how: dict[str, Any] = {"rotation": 38, "rotation_mode": "anchor", "va": "baseline"} if slanted else {}
        x, y = left + wide * (n + 0.5), top - (8 if slanted else 12)
        _write(axes, x, y, _short(name), "left" if slanted else "center", fontsize=SMALL, color=MUTED, **how)
    for line, (label, squares) in enumerate(rows.items()):
        y = top + high * line
        _write(axes, 1, y + high / 2, _short(label))
        for n, square in enumerate(squares):
            _square(axes, square, left + wide * n, y, wide, high, strength)
    x, y = left, top + high * len(rows) + 14
    for square, name in legend:
        _square(axes, square, x, y, 16, 16, strength)
        _write(axes, x + 22, y + 8, name, fontsize=SMALL, color=MUTED)
        x += 8.2 * len(name) + 40
    return figure


def _square(axes: Axes, square: Square, x: float, y: float, wide: float, high: float, strength: float) -> None:
    share = square.share or 0.0
    colour, full = (ACCENT if share > 0 else CONTRARY, strength * min(abs(share), 1)) if share else (LINE, 0.3)
    tip = {"gid": TIP + square.tip} if square.tip else {}
    _box(axes, x + 1, y + 1, wide - 2, high - 2, facecolor=colour, alpha=full, **tip)
    middle = x + wide / 2
    if square.text:
        _write(axes, middle, y + high / 2 - (7 if square.small else 0), square.text, "center", fontsize=TEXT - 0.5)
    if square.small:
        _write(axes, middle, y + high / 2 + 9, square.small, "center", fontsize=10.5)
    if square.marked:
        arm, centre = 4, y + high / 2
        for (colour, weight), slope in product(((PAPER, 4.5), (INK, 1.8)), (1, -1)):
            ends = [middle - arm, middle + arm], [centre - slope * arm, centre + slope * arm]
            axes.plot(*ends, color=colour, linewidth=weight, clip_on=False)


def curves(lines: Mapping[str, Mapping[float, Interval]], num_blocks: int, styles: Mapping[str, Look]) -> Figure:
    """What each scorer retains by the number of removed blocks, which starts with the intact model."""
    places = sorted({place for line in lines.values() for place in line})
    means = [one.mean for line in lines.values() for one in line.values()] + [1.0]
    ends = [end for line in lines.values() for one in line.values() for end in (one.low, one.high) if end is not None]
    low, high = min(means), max(means)
    margin = 0.35 * (high - low) + 0.02
    # A band far wider than all that the lines do would flatten them.
    low, high = (max(min([low, *ends]), low - margin, 0.0) - 0.015, min(max([high, *ends]), high + margin) + 0.015)
    right = _room(lines) + 62
    width, height = 680 + right, max(400, 18 * len(lines) + 90)
    figure = _figure(width, height)
    frame = (58 / width, 52 / height, (width - 58 - right) / width, (height - 52 - 30) / height)
    axes = figure.add_axes(frame)
    axes.patch.set_visible(False)
    axes.set(xlim=(0, places[-1]), ylim=(low, high))
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(LINE)
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    axes.tick_params(length=0, labelsize=SMALL, labelcolor=MUTED, pad=7)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    apart = 0.045 * places[-1]
    ticks = [0.0]
    for place in places:
        if place - ticks[-1] >= apart:
            ticks.append(place)
    axes.set_xticks(ticks, [f"{place:g}" for place in ticks])
    axes.set_xlabel(f"blocks removed, of {num_blocks}", fontsize=SMALL, color=MUTED, labelpad=6)
    figure.text(8 / width, 1 - 14 / height, "retained", fontsize=SMALL, color=MUTED, va="center_baseline")
    axes.axhline(1, color=MUTED, linewidth=1, zorder=1)
    fog = max(0.05, min(0.14, 0.7 / len(lines)))
    for label, line in lines.items():
        look = styles[label]
        points = {0.0: Interval(1.0, 1.0, 1.0, 1)} | dict(sorted(line.items()))
        x, y = list(points), np.array([one.mean for one in points.values()])
        lower, upper = (
            np.array([math.nan if end is None else end for end in each])
            for each in zip(*((one.low, one.high) for one in points.values()), strict=True)
        )
        axes.fill_between(x, lower, upper, color=look.colour, alpha=fog, linewidth=0)
        axes.plot(x, y, color=look.colour, linestyle=look.dashes, linewidth=1.8, zorder=3)
        axes.plot(
            x[1:], y[1:], look.marker, color=look.colour, markersize=6, markeredgecolor=PAPER, markeredgewidth=0.8,
            zorder=4, clip_on=False,
        )  # fmt: skip
    _label_ends(axes, lines, styles, (height - 82) / (high - low), places[-1] / (width - 58 - right))
    return figure


def _label_ends(
    axes: Axes, lines: Mapping[str, Mapping[float, Interval]], styles: Mapping[str, Look], up: float, pixel: float
) -> None:
    """Write each label beside the end of its line, as far from its neighbours as text needs."""
    low, high = axes.get_ylim()
    last = {label: max(line) for label, line in lines.items()}
    order = sorted(lines, key=lambda label: -lines[label][last[label]].mean)
    gap = 16.5
    wanted = [up * (high - lines[label][last[label]].mean) for label in order]
    for n in range(1, len(wanted)):
        wanted[n] = max(wanted[n], wanted[n - 1] + gap)
    floor = up * (high - low) + 8
    for n in reversed(range(len(wanted))):
        wanted[n] = min(wanted[n], floor - gap * (len(wanted) - 1 - n))
    edge = axes.get_xlim()[1]
    for label, place in zip(order, wanted, strict=True):
        look, y = styles[label], high - place / up
        start = last[label], lines[label][last[label]].mean
        ends = [start[0] + 5 * pixel, edge + 28 * pixel], [start[1], y]
        axes.plot(*ends, color=look.colour, linewidth=0.7, alpha=0.6, clip_on=False)
        sample = [edge + shift * pixel for shift in (28, 40, 52)]
        axes.plot(sample, [y] * 3, color=look.colour, linestyle=look.dashes, linewidth=1.8, clip_on=False)
        axes.plot(sample[1:2], [y], look.marker, color=look.colour, markersize=6, markeredgecolor=PAPER, clip_on=False)
        _write(axes, edge + 58 * pixel, y, _short(label), color=look.colour)


def removable(rows: Mapping[str, Mapping[float, Level]], measured: Sequence[int], styles: Mapping[str, Look]) -> Figure:
    """How many blocks may go by each contender's choice, a line for each level, the strictest at the bottom."""
    levels = list(next(iter(rows.values())))
    left, row, top, span = _room([*rows, "blocks"]), 22.0 * len(levels) + 14, 30.0, 520.0
    figure, axes = _canvas(left + span + 110, top + row * len(rows) + 6)
    _write(axes, 1, top - 18, "blocks", fontsize=SMALL, color=MUTED)
    scale = span / measured[-1]
    for count in (0, *measured):
        x = left + scale * count
        axes.plot([x, x], [top - 8, top + row * len(rows)], color=LINE, linewidth=0.8, clip_on=False)
        _write(axes, x, top - 18, str(count), "center", fontsize=SMALL, color=MUTED)
    for n, (label, found) in enumerate(rows.items()):
        _write(axes, 1, top + row * (n + 0.5), _short(label))
        colour = styles[label].colour
        for line, (share, level) in enumerate(found.items()):
            y, x = top + row * n + 18 + 22 * line, left + scale * level.mean.mean
            axes.plot([left, x], [y, y], color=colour, linewidth=2.2, alpha=0.3, clip_on=False)
            end = x
            if level.mean.low is not None and level.mean.high is not None and not level.at_least:
                low, high = left + scale * level.mean.low, left + scale * min(level.mean.high, measured[-1])
                axes.plot([low, high], [y, y], color=colour, linewidth=1.2, clip_on=False)
                end = max(end, high)
            axes.plot([x], [y], ">" if level.at_least else "o", color=colour, markersize=7, clip_on=False)
            _write(axes, end + 11, y, f"{removable_at(level)}  at {share:.0%}", fontsize=SMALL)
    return figure


def costs(passes: Mapping[str, float | None], styles: Mapping[str, Look]) -> Figure:
    """What each scorer costs, on a logarithmic scale; the free ones, and those never timed, in words."""
    left, row, top, span = _room([*passes, "bare passes"]), 26.0, 30.0, 480.0
    figure, axes = _canvas(left + span + 90, top + row * len(passes) + 6)
    _write(axes, 1, top - 18, "bare passes", fontsize=SMALL, color=MUTED)
    known = [cost for cost in passes.values() if cost]
    low, high = math.floor(math.log10(min([1.0, *known]))), max(1, math.ceil(math.log10(max([10.0, *known]))))
    for power in range(low, high + 1):
        x = left + span * (power - low) / (high - low)
        axes.plot([x, x], [top - 8, top + row * len(passes)], color=LINE, linewidth=0.8, clip_on=False)
        _write(axes, x, top - 18, f"{10.0**power:g}", "center", fontsize=SMALL, color=MUTED)
    for n, (label, cost) in enumerate(passes.items()):
        y = top + row * (n + 0.5)
        _write(axes, 1, y, _short(label))
        if not cost:
            what = "not timed" if cost is None else "0, looks at no text"
            _write(axes, left + 8, y, what, fontsize=SMALL, color=MUTED)
            continue
        x = left + span * (math.log10(cost) - low) / (high - low)
        axes.plot([left, x], [y, y], color=styles[label].colour, linewidth=2.2, alpha=0.55, clip_on=False)
        axes.plot([x], [y], "o", color=styles[label].colour, markersize=8, clip_on=False)
        _write(axes, x + 11, y, f"{cost:.3g}", fontsize=SMALL)
    return figure


def dots(panels: Mapping[str, Mapping[str, Sequence[float]]], num_blocks: int, styles: Mapping[str, Look]) -> Figure:
    """For each panel the share of repeats in which each scorer removes each block, as the areas of dots."""
    labels = {label for panel in panels.values() for label in panel}
    left, cell, row, head = _room(labels), cell_width(num_blocks), 22.0, 76.0
    height = sum(head + row * len(panel) for panel in panels.values())
    figure, axes = _canvas(left + cell * num_blocks + 10, height - 16)
    y, radius = -22.0, min(cell, row) * 0.42
    for title, panel in panels.items():
        _write(axes, 1, y + 34, title, fontweight="bold")
        for block in range(num_blocks):
            x = left + cell * (block + 0.5)
            _write(axes, x, y + 62, str(block), "center", fontsize=SMALL - 0.5, color=MUTED)
        y += head
        for label, shares in panel.items():
            _write(axes, 1, y + row / 2, _short(label))
            places = [left + cell * (block + 0.5) for block in range(num_blocks)]
            empty = [place for place, share in zip(places, shares, strict=True) if not share]
            _dots(axes, empty, y + row / 2, 1.4, LINE)
            for block, share in enumerate(shares):
                if share:
                    tip = f"{label}, block {block}: {share:.0%} removed"
                    size = max(radius * math.sqrt(share), 2.2)
                    _dots(axes, places[block : block + 1], y + row / 2, size, styles[label].colour, gid=TIP + tip)
            y += row
    return figure


def _dots(axes: Axes, places: Sequence[float], y: float, radius: float, colour: str, **how: Any) -> None:
    """Dots of one size in a row; as markers, whose shape the picture holds but once."""
    style: dict[str, Any] = {"markersize": 2 * radius, "markeredgewidth": 0, "linestyle": "", "clip_on": False}
    axes.plot(places, [y] * len(places), "o", color=colour, **style | how)


def cell_width(num_blocks: int) -> float:
    """How wide the column of a block is, in pixels."""
    return min(max(860 / num_blocks, 21.0), 52.0)

"""The figures of the report that are drawn to a scale: curves and bars."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from layerimp.report.html.canvas import SMALL, WIDE, Sheet, blank, canvas, room, short, write
from layerimp.report.html.svg import LINE, MUTED, PAPER, Look
from layerimp.report.removable import Level
from layerimp.report.statistics import Interval
from layerimp.report.tables import removable_at

Lines = Mapping[str, Mapping[float, Interval]]
"""What each contender retains, by the number of removed blocks."""
_SAMPLE = 24
"""How long a sample of a line is in a legend, in pixels."""
_ASIDE = 22
"""How far intervals stand aside at most, so that none covers another, in pixels."""


def curves(lines: Lines, num_blocks: int, styles: Mapping[str, Look], sheet: Sheet = WIDE) -> Figure:
    """What each scorer retains by the number of removed blocks, which starts with the intact model."""
    right = 14 if sheet.above else room(lines) + 62
    columns = max(1, int(sheet.width // (room(lines) + _SAMPLE + 10)))
    legend = 19 * -(-len(lines) // columns) + 12 if sheet.above else 0
    height = 330 + legend if sheet.above else max(400, 18 * len(lines) + 90)
    figure = blank(sheet.width, height)
    left, bottom = 48 if sheet.above else 58, 52 + legend
    inner = sheet.width - left - right, height - bottom - 30
    axes = figure.add_axes((left / sheet.width, bottom / height, inner[0] / sheet.width, inner[1] / height))
    places = sorted({place for line in lines.values() for place in line})
    pixel = places[-1] / (inner[0] - _ASIDE)
    axes.set(xlim=(0, places[-1] + _ASIDE * pixel), ylim=_span(lines, styles))
    _dress(axes, places, num_blocks, pixel)
    figure.text(8 / sheet.width, 1 - 14 / height, "retained", fontsize=SMALL, color=MUTED, va="center_baseline")
    shifts = _shifts([label for label in lines if not styles[label].behind], places, pixel)
    for label, line in lines.items():
        _curve(axes, dict(sorted(line.items())), styles[label], shifts.get(label, 0.0))
    low, high = axes.get_ylim()
    if sheet.above:
        _legend(figure, lines, styles, columns, legend)
    else:
        _label_ends(axes, lines, styles, inner[1] / (high - low), pixel)
    return figure


def _span(lines: Lines, styles: Mapping[str, Look]) -> tuple[float, float]:
    """What the plot shows of the scale: all means, and intervals as far as they leave the means apart.

    How far chance reaches is no reason to show more.
    """
    means = [one.mean for line in lines.values() for one in line.values()] + [1.0]
    ends = [
        end
        for label, line in lines.items()
        if not styles[label].behind
        for one in line.values()
        for end in (one.low, one.high)
        if end is not None
    ]
    low, high = min(means), max(means)
    margin = 0.15 * (high - low) + 0.02
    low, high = max(min([low, *ends]), low - margin, 0.0), min(max([high, *ends]), high + margin)
    return low - 0.015, high + 0.015


def _dress(axes: Axes, places: Sequence[float], num_blocks: int, pixel: float) -> None:
    """The grid, the scales and their names."""
    axes.patch.set_visible(False)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(LINE)
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    axes.tick_params(length=0, labelsize=SMALL, labelcolor=MUTED, pad=7)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    ticks = [0.0]
    for place in places:
        if place - ticks[-1] >= 22 * pixel:
            ticks.append(place)
    axes.set_xticks(ticks, [f"{place:g}" for place in ticks])
    axes.set_xlabel(f"blocks removed, of {num_blocks}", fontsize=SMALL, color=MUTED, labelpad=6)
    axes.axhline(1, color=MUTED, linewidth=1, zorder=1)


def _shifts(labels: Sequence[str], places: Sequence[float], pixel: float) -> dict[str, float]:
    """How far each contender's points stand to the side, so that no interval covers another."""
    nearest = min(b - a for a, b in zip([0.0, *places], places, strict=False))
    step = min(5 * pixel, 0.5 * nearest / max(len(labels), 1), 2 * (_ASIDE - 4) * pixel / max(len(labels), 1))
    return {label: (n - (len(labels) - 1) / 2) * step for n, label in enumerate(labels)}


def _curve(axes: Axes, line: Mapping[float, Interval], look: Look, shift: float) -> None:
    """One line with its intervals: those of chance as a pale band behind all, others as thin bars."""
    x, y = [place + shift for place in line], [one.mean for one in line.values()]
    ends = [
        (math.nan if one.low is None else one.low, math.nan if one.high is None else one.high) for one in line.values()
    ]
    low, high = ([end[side] for end in ends] for side in (0, 1))
    size, weight, height = (4.5, 1.0, 2.0) if look.behind else (6.0, 1.8, 3.0)
    if look.behind:
        axes.fill_between([0, *x], [1, *low], [1, *high], color=look.colour, alpha=0.08, linewidth=0, zorder=0.5)
    else:
        axes.vlines(x, low, high, color=look.colour, linewidth=1.0, alpha=0.55, zorder=2.5)
    axes.plot([0, *x], [1, *y], color=look.colour, linestyle=look.dashes, linewidth=weight, zorder=height)
    axes.plot(
        x, y, look.marker, color=look.colour, markersize=size, markeredgecolor=PAPER, markeredgewidth=0.8,
        zorder=height + 1, clip_on=False,
    )  # fmt: skip


def _from_best(lines: Lines) -> list[str]:
    """The labels, that whose line ends highest first."""
    return sorted(lines, key=lambda label: -lines[label][max(lines[label])].mean)


def _sample(axes: Axes, x: float, y: float, pixel: float, look: Look) -> None:
    """What a line looks like."""
    across = [x, x + _SAMPLE / 2 * pixel, x + _SAMPLE * pixel]
    axes.plot(across, [y] * 3, color=look.colour, linestyle=look.dashes, linewidth=1.8, clip_on=False)
    axes.plot(across[1:2], [y], look.marker, color=look.colour, markersize=6, markeredgecolor=PAPER, clip_on=False)


def _legend(figure: Figure, lines: Lines, styles: Mapping[str, Look], columns: int, height: float) -> None:
    """The labels beneath the plot, with samples of their lines."""
    width, whole = (72 * side for side in figure.get_size_inches())
    axes = figure.add_axes((0, 0, 1, height / whole))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    for n, label in enumerate(_from_best(lines)):
        x, y = 2 + (width / columns) * (n % columns), 14 + 19 * (n // columns)
        _sample(axes, x, y, 1, styles[label])
        write(axes, x + _SAMPLE + 7, y, short(label), color=styles[label].colour)


def _label_ends(axes: Axes, lines: Lines, styles: Mapping[str, Look], up: float, pixel: float) -> None:
    """Write each label beside the end of its line, as far from its neighbours as text needs."""
    low, high = axes.get_ylim()
    last = {label: max(line) for label, line in lines.items()}
    order = _from_best(lines)
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
        ends = [start[0] + (_ASIDE + 2) * pixel, edge + 24 * pixel], [start[1], y]
        axes.plot(*ends, color=look.colour, linewidth=0.7, alpha=0.6, clip_on=False)
        _sample(axes, edge + 24 * pixel, y, pixel, look)
        write(axes, edge + (30 + _SAMPLE) * pixel, y, short(label), color=look.colour)


def removable(
    rows: Mapping[str, Mapping[float, Level]],
    measured: Sequence[int],
    styles: Mapping[str, Look],
    sheet: Sheet = WIDE,
) -> Figure:
    """How many blocks may go by each contender's choice, a line for each level, the strictest at the bottom."""
    levels = list(next(iter(rows.values())))
    left, row, top = sheet.left([*rows, "blocks"]) + 5, 22.0 * len(levels) + 14 + sheet.lift, 30.0
    span = min(520.0, sheet.width - left - 160)
    figure, axes = canvas(left + span + 160, top + row * len(rows) + 6)
    scale = span / measured[-1]
    _scale(axes, "blocks", {left + scale * count: str(count) for count in (0, *measured)}, top, row * len(rows), sheet)
    for n, (label, found) in enumerate(rows.items()):
        write(axes, 1, top + row * n + (sheet.lift + 4 if sheet.above else row) / 2, short(label))
        colour = styles[label].colour
        for line, (share, level) in enumerate(found.items()):
            y, x = top + row * n + 18 + sheet.lift + 22 * line, left + scale * level.mean.mean
            axes.plot([left, x], [y, y], color=colour, linewidth=2.2, alpha=0.3, clip_on=False)
            end = x
            if level.mean.low is not None and level.mean.high is not None and not level.at_least:
                low, high = left + scale * level.mean.low, left + scale * min(level.mean.high, measured[-1])
                axes.plot([low, high], [y, y], color=colour, linewidth=1.2, clip_on=False)
                end = max(end, high)
            axes.plot([x], [y], ">" if level.at_least else "o", color=colour, markersize=7, clip_on=False)
            write(axes, end + 11, y, f"{removable_at(level)}  at {share:.0%}", fontsize=SMALL)
    return figure


def costs(passes: Mapping[str, float | None], styles: Mapping[str, Look], sheet: Sheet = WIDE) -> Figure:
    """What each scorer costs, on a logarithmic scale; the free ones, and those never timed, in words."""
    left, row, top = sheet.left([*passes, "bare passes"]) + 5, 26.0 + sheet.lift, 30.0
    span = min(480.0, sheet.width - left - 70)
    figure, axes = canvas(left + span + 70, top + row * len(passes) + 6)
    known = [cost for cost in passes.values() if cost]
    low, high = math.floor(math.log10(min([1.0, *known]))), max(1, math.ceil(math.log10(max([10.0, *known]))))
    scale = span / (high - low)
    marks = {left + scale * (power - low): f"{10.0**power:g}" for power in range(low, high + 1)}
    _scale(axes, "bare passes", marks, top, row * len(passes), sheet)
    for n, (label, cost) in enumerate(passes.items()):
        y = top + row * n + sheet.lift + 13
        write(axes, 1, top + row * n + (sheet.lift + 4 if sheet.above else row) / 2, short(label))
        if not cost:
            what = "not timed" if cost is None else "0, looks at no text"
            write(axes, left + 8, y, what, fontsize=SMALL, color=MUTED)
            continue
        x = left + scale * (math.log10(cost) - low)
        axes.plot([left, x], [y, y], color=styles[label].colour, linewidth=2.2, alpha=0.55, clip_on=False)
        axes.plot([x], [y], "o", color=styles[label].colour, markersize=8, clip_on=False)
        write(axes, x + 11, y, f"{cost:.3g}", fontsize=SMALL)
    return figure


def _scale(axes: Axes, unit: str, marks: Mapping[float, str], top: float, height: float, sheet: Sheet) -> None:
    """Lines across all rows, and above them their numbers and the unit, as far as none covers another."""
    if not sheet.above:
        write(axes, 1, top - 18, unit, fontsize=SMALL, color=MUTED)
    for x in marks:
        axes.plot([x, x], [top - 8, top + height], color=LINE, linewidth=0.8, clip_on=False)
    for x, name in _apart(marks.items()):
        anchor = "left" if sheet.above and x == min(marks) else "center"
        last = f"{name} {unit}" if sheet.above and x == max(marks) else name
        write(axes, x, top - 18, last, anchor, fontsize=SMALL, color=MUTED)


def _apart(marks: Iterable[tuple[float, str]]) -> Iterator[tuple[float, str]]:
    """The marks that can be written without one covering the other."""
    end = -math.inf
    for x, name in marks:
        half = 3.5 * len(name) + 3
        if x - half >= end:
            yield x, name
            end = x + half

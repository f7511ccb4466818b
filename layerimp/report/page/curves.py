"""What scorers look like, and the curves of what they retain: SVG whose colours are CSS variables."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from layerimp.defaults import RANDOM
from layerimp.report.results.contenders import contenders
from layerimp.report.results.measures import Interval

# Colours that stand for CSS variables until the picture is written.
INK, MUTED, LINE, PAPER, ACCENT = (f"#0a0b0{n}" for n in range(1, 6))
_VARIABLES = {INK: "ink", MUTED: "muted", LINE: "line", PAPER: "paper", ACCENT: "accent"}
_HUES = 5
_SERIES = [f"#0a0c0{n}" for n in range(_HUES + 1)]
_VARIABLES |= {colour: f"series-{n}" for n, colour in enumerate(_SERIES)}
_DASHES: Sequence[Any] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
_MARKERS = "osD^vPX<>"

Lines = Mapping[str, Mapping[int, Interval]]
"""What each contender retains, by the number of removed blocks."""
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 640, 380, 84, 46, 22, 14
"""The curves and the room around them, in units that are as wide as the page shows the picture."""
_TEXT = 18
"""The size of the numbers, in these units; the page sets it by the width of the screen."""
_MOST_TICKS = 12


@dataclass(frozen=True)
class Look:
    """How a scorer, healed or not, is drawn: colour, dashes and marker together differ from those of all others.

    Attributes:
        colour: The colour of lines, points and bars.
        dashes: The dashes of lines.
        marker: The marker of points.
        behind: Whether it is chance, which stands behind what is compared with it.
    """

    colour: str
    dashes: Any
    marker: str
    behind: bool = False

    @property
    def hue(self) -> str:
        """The colour in CSS."""
        return f"var(--{_VARIABLES[self.colour]})"


def looks(scorers: Sequence[str], baselines: Collection[str], healers: Collection[str] = ()) -> dict[str, Look]:
    """Baselines in grey, the others in five hues that colour-blind readers can distinguish, by turns with other dashes.

    What is healed has the colour and the marker of its scorer, with other dashes: enough for three healers.
    """
    styles, counts = {}, {True: 0, False: 0}
    for scorer in scorers:
        grey = scorer in baselines
        n = counts[grey]
        counts[grey] += 1
        turn = n + 1 if grey else n // _HUES
        colour, marker = _SERIES[_HUES if grey else n % _HUES], _MARKERS[(n + n // 9) % len(_MARKERS)]
        for healed, label in enumerate(contenders([scorer], healers)):
            styles[label] = Look(colour, _DASHES[(turn + healed) % len(_DASHES)], marker, behind=scorer == RANDOM)
    return styles


def curves(lines: Lines, styles: Mapping[str, Look]) -> Figure:
    """Draw what each contender retains by the number of removed blocks, which starts with the intact model.

    Two points are joined only where the errors of both are known: the page shows no trend that may be none.
    """
    figure = Figure(figsize=(_WIDTH / 72, _HEIGHT / 72), dpi=72)
    inner = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _BOTTOM - _TOP
    axes = figure.add_axes((_LEFT / _WIDTH, _BOTTOM / _HEIGHT, inner[0] / _WIDTH, inner[1] / _HEIGHT))
    counts = sorted({count for line in lines.values() for count in line})
    shifts = _shifts([label for label in lines if not styles[label].behind], counts)
    axes.set(xlim=(0, counts[-1] * 1.03), ylim=_span(lines))
    _dress(axes, counts)
    for label, line in lines.items():
        _curve(axes, label, dict(sorted(line.items())), styles[label], shifts.get(label, 0.0))
    return figure


def _span(lines: Lines) -> tuple[float, float]:
    """Return the part of the scale to show: all means, and intervals as far as the means remain apart."""
    means = [1.0, *(value.mean for line in lines.values() for value in line.values())]
    low, high = min(means), max(means)
    margin = 0.15 * (high - low) + 0.02
    return min(low, max(low - margin, 0.0)) - 0.015, high + margin / 3


def _dress(axes: Axes, counts: Sequence[int]) -> None:
    """Draw the grid and the numbers of both scales, as many as have room on the narrowest screen."""
    axes.patch.set_visible(False)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(LINE)
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    axes.tick_params(length=0, labelsize=_TEXT, labelcolor=MUTED, pad=9)
    axes.locator_params(axis="y", nbins=6, steps=[1, 2, 5, 10])
    axes.yaxis.set_major_formatter(lambda value, _: f"{value * 100:.3g}%")
    ticks = [0]
    for count in counts:
        if count - ticks[-1] >= counts[-1] / _MOST_TICKS:
            ticks.append(count)
    axes.set_xticks(ticks, [str(count) for count in ticks])
    axes.axhline(1, color=MUTED, linewidth=1, zorder=1)


def _shifts(labels: Sequence[str], counts: Sequence[int]) -> dict[str, float]:
    """Return how far each contender's points stand to the side, so that no interval covers another."""
    nearest = min(b - a for a, b in pairwise([0, *counts]))
    step = min(0.5 * nearest / max(len(labels), 1), 0.012 * counts[-1], 0.05 * counts[-1] / max(len(labels), 1))
    return {label: (n - (len(labels) - 1) / 2) * step for n, label in enumerate(labels)}


def _curve(axes: Axes, label: str, line: Mapping[int, Interval], look: Look, shift: float) -> None:
    """Draw a line with its intervals: those of chance as a pale band behind all, others as thin bars."""
    x = [0.0, *(count + shift for count in line)]
    values = [Interval(mean=1.0, low=1.0, high=1.0, count=1), *line.values()]
    y = [value.mean for value in values]
    low, high = ([math.nan if end is None else end for end in ends] for ends in zip(*map(_ends, values), strict=True))
    size, weight, height = (4.5, 1.0, 2.0) if look.behind else (6.0, 1.8, 3.0)
    if look.behind:
        axes.fill_between(x, low, high, color=look.colour, alpha=0.08, linewidth=0, zorder=0.5)
    else:
        axes.vlines(x[1:], low[1:], high[1:], color=look.colour, linewidth=1.2, alpha=0.55, zorder=2.5)
    joined = [math.nan if math.isnan(end) else value for value, end in zip(y, low, strict=True)]
    axes.plot(x, joined, color=look.colour, linestyle=look.dashes, linewidth=weight, zorder=height, label=label)
    axes.plot(
        x[1:], y[1:], look.marker, color=look.colour, markersize=size, markeredgecolor=PAPER, markeredgewidth=0.8,
        zorder=height + 1, clip_on=False,
    )  # fmt: skip


def _ends(value: Interval) -> tuple[float | None, float | None]:
    return value.low, value.high


def sample(look: Look, name: str) -> Markup:
    """Return a short piece of a line with its marker, for the name of the contender that the line belongs to."""
    figure = Figure(figsize=(28 / 72, 12 / 72), dpi=72)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 28), ylim=(0, 12))
    axes.axis("off")
    axes.plot([0, 28], [6, 6], color=look.colour, linestyle=look.dashes, linewidth=1.8)
    axes.plot([14], [6], look.marker, color=look.colour, markersize=6.5, markeredgecolor=PAPER)
    return _svg(figure, name, 'class="sample" aria-hidden="true"')


def drawn(figure: Figure, name: str, alt: str) -> Markup:
    """Return the figure as SVG, whose ids no other name shares; without dates, so that it is always the same."""
    return _svg(figure, name, f'role="img" aria-label="{escape(alt)}"')


def _svg(figure: Figure, name: str, attributes: str) -> Markup:
    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "layerimp"}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = file.getvalue()[file.getvalue().index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.S)
    used = set(re.findall(r'(?:url\(|href=")#([^")]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda match: f' id="{name}-{match[1]}"' if match[1] in used else "", text)
    text = re.sub(r'(url\(|href=")#', rf"\1#{name}-", text)
    # Versions of Matplotlib write the family by itself, or in the shorthand.
    text = re.sub(r"""(font: [^;"']*?px|font-family:) [^;"]*""", r"\1 var(--sans)", text)
    # Whole tags are left alone but for what says where things are: two decimals are finer than any screen.
    text = re.sub(r' (?:d|x|y|transform)="[^"]*"', lambda match: re.sub(r"(\.\d\d)\d+|\n", r"\1 ", match[0]), text)
    text = re.sub(r">\s+<", "><", text)
    text = re.sub("|".join(_VARIABLES), lambda match: f"var(--{_VARIABLES[match[0]]})", text)
    width, height = (round(side * 72) for side in figure.get_size_inches())
    head = f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" {attributes}>'
    return Markup(re.sub(r"<svg[^>]*>", lambda _: head, text.strip(), count=1))

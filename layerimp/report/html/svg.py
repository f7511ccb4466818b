"""Pictures for the report: SVG whose colours are CSS variables, so that one picture serves light and dark."""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

from layerimp.defaults import RANDOM
from layerimp.report.findings import contenders

# Colours that stand for CSS variables until the picture is written.
INK, MUTED, LINE, PAPER, ACCENT, CONTRARY = (f"#0a0b0{n}" for n in range(1, 7))
_VARIABLES = {INK: "ink", MUTED: "muted", LINE: "line", PAPER: "paper", ACCENT: "accent", CONTRARY: "contrary"}
HUES = 5
_SERIES = [f"#0a0c0{n}" for n in range(HUES + 1)]
_VARIABLES |= {colour: f"series-{n}" for n, colour in enumerate(_SERIES)}
_DASHES: Sequence[Any] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
_MARKERS = "osD^vPX<>"
TIP = "tip:"


@dataclass(frozen=True)
class Look:
    """How a scorer, healed or not, is drawn: colour, dashes and marker together tell it from all others.

    Attributes:
        colour: Of lines, points and text.
        dashes: Of lines.
        marker: Of points.
        behind: Whether it is chance, which stands behind what is compared with it.
    """

    colour: str
    dashes: Any
    marker: str
    behind: bool = False


def looks(scorers: Sequence[str], baselines: Collection[str], healers: Collection[str] = ()) -> dict[str, Look]:
    """Baselines in grey, the others in five hues that colour-blind readers tell apart, by turns with other dashes.

    What is healed has the colour and the marker of its scorer, with other dashes: up to three healers are told apart.
    """
    found, counts = {}, {True: 0, False: 0}
    for scorer in scorers:
        grey = scorer in baselines
        n = counts[grey]
        counts[grey] += 1
        turn = n + 1 if grey else n // HUES
        colour, marker = _SERIES[HUES if grey else n % HUES], _MARKERS[(n + n // 9) % len(_MARKERS)]
        for healed, label in enumerate(contenders([scorer], healers)):
            found[label] = Look(colour, _DASHES[(turn + healed) % len(_DASHES)], marker, behind=scorer == RANDOM)
    return found


def drawn(figure: Figure, name: str, alt: str) -> Markup:
    """The figure as SVG for a page, whose ids no other name shares; without dates, so that it is always the same."""
    return _svg(figure, name, f'role="img" aria-label="{escape(alt)}"')


def drawn_twice(wide: Figure, narrow: Figure, name: str, alt: str) -> Markup:
    """One picture in two widths, of which the page shows the one that it has room for."""
    both = _svg(wide, name, 'class="wide"') + _svg(narrow, f"{name}-narrow", 'class="narrow"')
    return Markup(f'<div class="picture" role="img" aria-label="{escape(alt)}">{both}</div>')


def _svg(figure: Figure, name: str, attributes: str) -> Markup:
    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "layerimp"}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = file.getvalue()[file.getvalue().index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.S)
    text = re.sub(rf'<g id="{TIP}([^"]*)">', r"<g><title>\1</title>", text)
    used = set(re.findall(r'(?:url\(|href=")#([^")]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", text)
    text = re.sub(r'(url\(|href=")#', rf"\1#{name}-", text)
    # Versions of Matplotlib write the family by itself, or in the shorthand.
    text = re.sub(r"""(font: [^;"']*?px|font-family:) [^;"]*""", r"\1 var(--sans)", text)
    # Whole tags are left alone but for what says where things are: two decimals are finer than any screen.
    text = re.sub(r' (?:d|x|y|transform)="[^"]*"', lambda found: re.sub(r"(\.\d\d)\d+|\n", r"\1 ", found[0]), text)
    text = re.sub(r">\s+<", "><", text)
    text = re.sub("|".join(_VARIABLES), lambda found: f"var(--{_VARIABLES[found[0]]})", text)
    width, height = (round(side * 72) for side in figure.get_size_inches())
    head = f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" {attributes}>'
    return Markup(re.sub(r"<svg[^>]*>", lambda _: head, text, count=1))

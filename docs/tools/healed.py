"""The figure of the README and the home page: what is retained by removed blocks, unhealed and healed.

Its numbers come from the grid `benchmarks/grids/starter-healed.yaml` and lie beside it, in `docs/figures/healed.json`.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pages
import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from layerimp.bench import commands
from layerimp.report.html.svg import ACCENT, INK, LINE, MUTED, PAPER, drawn
from layerimp.report.statistics import Interval, interval

RECIPE = pages.ROOT / "benchmarks" / "grids" / "starter-healed.yaml"
DATA = pages.ROOT / "docs" / "figures" / "healed.json"
HEALER = "linear"
WIDTH, HEIGHT, TOP, BOTTOM, LEFT, GAP, RIGHT = 760, 300, 64, 56, 56, 24, 14
"""In pixels: the picture, and what lies around and between its panels."""
_LINES = {"unhealed": "", "healed": f"+{HEALER}"}
"""What the lines of a panel are called, and how their labels in the grid end."""
_STYLES: dict[str, dict[str, Any]] = {
    "unhealed": {"color": MUTED, "linestyle": (0, (5, 2)), "marker": "o"},
    "healed": {"color": ACCENT, "linestyle": "-", "marker": "s"},
}
_EDGE: dict[str, Any] = {"markersize": 6, "markeredgecolor": PAPER, "markeredgewidth": 0.8}
_COLOURS = {
    "light": "--paper: #ffffff; --ink: #1c1e22; --muted: #5b5f67; --line: #dcdad4; --accent: #0b62a8;",
    "dark": "--paper: #15171a; --ink: #e9e7e2; --muted: #a5a9b0; --line: #363a40; --accent: #5fb0f0;",
}


class Measured(TypedDict):
    """What the grid gave.

    Attributes:
        recipe: The hash of the recipe.
        num_blocks: How many blocks the intact model has.
        documents: How many documents were measured.
        retained: By label of the contender and number of removed blocks, the share that each draw of text retains.
    """

    recipe: str
    num_blocks: int
    documents: int
    retained: dict[str, dict[str, list[float]]]


def recipe_hash() -> str:
    """What changes with the recipe, but not with its comments."""
    recipe = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]


def measured(options: str = "") -> Measured:
    """Run the grid; with the default recipe this takes some ten minutes on one core."""
    command = f"layerimp bench --recipe {RECIPE} --workers 0 --output grid {options}\n"
    with tempfile.TemporaryDirectory() as folder:
        pages.Workshop(Path(folder)).run(pages.Block("bash", "", command))
        return found_in(Path(folder) / "grid")


def found_in(grid: Path) -> Measured:
    """What a finished grid holds."""
    (model,) = commands.findings(grid).models.values()
    retained: dict[str, dict[str, list[float]]] = {}
    for row in model.headlines:
        count = str(round(row.removed_blocks * model.num_blocks))
        for label, entry in row.entries.items():
            retained.setdefault(label, {})[count] = [round(value, 5) for value in entry.values]
    (documents,) = set(model.documents.values())
    return Measured(recipe=recipe_hash(), num_blocks=model.num_blocks, documents=documents or 0, retained=retained)


def known() -> Measured:
    """What was measured last."""
    found: Measured = json.loads(DATA.read_text(encoding="utf-8"))
    return found


def measured_picture() -> str:
    """Measure, keep the numbers, and draw them."""
    found = measured()
    DATA.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return picture(found)


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
        spans = [Interval(1.0, 1.0, 1.0, 1), *map(interval, line.values())]
        low, high = np.clip(np.array([(span.low, span.high) for span in spans], dtype=float).T, 0, 1)
        axes.fill_between(places, low, high, color=_STYLES[name]["color"], alpha=0.16, linewidth=0)
        axes.plot(places, [span.mean for span in spans], linewidth=2, zorder=3, **_EDGE, **_STYLES[name])


def standalone(svg: str) -> str:
    """A picture that needs no page around it: it has colours of its own for light and dark, and a ground."""
    sans = "--sans: system-ui, -apple-system, 'Segoe UI', sans-serif;"
    style = (
        f"<style>svg {{ {sans} {_COLOURS['light']} }} "
        f"@media (prefers-color-scheme: dark) {{ svg {{ {_COLOURS['dark']} }} }}</style>"
    )
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    ground = '<rect width="100%" height="100%" rx="6" style="fill: var(--paper)"/>'
    return re.sub(r"<svg ([^>]*)>", lambda found: f"<svg {names} {found[1]}>{style}{ground}", svg, count=1)


def caption(found: Measured) -> str:
    """What README and home page say of the figure in numbers."""

    def share(line: str, count: str) -> str:
        return f"{100 * interval(found['retained']['block-influence' + _LINES[line]][count]).mean:.0f} %"

    four, six, healed_four, healed_six = (share(line, count) for line in ("unhealed", "healed") for count in ("4", "6"))
    return (
        f"retains {four} after losing 4 of its {found['num_blocks']} blocks, chosen by `block-influence`, and "
        f"{healed_four} once healed; after losing 6, it retains {six}, and {healed_six} once healed."
    )

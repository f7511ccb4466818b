"""The figures of the pages, drawn from results on the starter."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pages
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from layerimp.bench import commands as pipeline
from layerimp.report.page.curves import ACCENT, INK, LINE, MUTED, PAPER, curves, drawn, looks
from layerimp.scorer import Importance

SMALL = 11.5
GRID = (
    "layerimp bench --no-baselines --scorer avss --scorer paper=avss --set paper.variant=paper --scorer lrp "
    "--scorer block-influence --scorer random --count 1 --count 3 --count 6 --repeats 3 --limit 30 "
    "--output grid"
)
"""It takes about a minute."""


def dress(axes: Axes, across: str, up: str) -> None:
    """Name what the two axes show, and take away what is only decoration.

    Args:
        axes: The axes.
        across: What the horizontal axis shows.
        up: What the vertical axis shows; it stands above the axes.
    """
    axes.patch.set_visible(False)
    axes.tick_params(length=0, labelsize=SMALL, labelcolor=MUTED, which="both")
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(LINE)
    axes.set_xlabel(across, fontsize=SMALL, color=MUTED)
    axes.set_title(up, fontsize=SMALL, color=MUTED, loc="left")


def first_blocks() -> str:
    """The shares of AVSS by block, for the literal and the default reading."""
    scored = _scores("--scorer paper=avss --set paper.variant=paper --set paper.epsilon=0.01 --scorer avss")
    series = {"literal (block_out)": scored["paper"], "default (mlp_act)": scored["avss"]}
    styles = looks(list(series), ())
    figure = Figure(figsize=(640 / 72, 300 / 72), dpi=72)
    axes = figure.add_axes((0.09, 0.16, 0.66, 0.76))
    for label, result in series.items():
        shares, look = result["columns"]["normalized_avss"], styles[label]
        axes.plot(shares, color=look.colour, linestyle=look.dashes, marker=look.marker, linewidth=1.8, clip_on=False)
        end = len(shares) - 1, shares[-1]
        axes.annotate(label, end, (10, 0 if "literal" in label else -14), textcoords="offset points", color=look.colour)
    axes.set_yscale("log")
    axes.set_xticks(range(len(shares)))
    dress(axes, "block", "share of AVSS")
    return str(drawn(figure, "first-blocks", "Share of AVSS by block, literal and default reading"))


def ranks() -> str:
    """Each scorer's order of removal, the first three in colour."""
    scored = _scores("--scorer all --scorer paper=avss --set paper.variant=paper --samples 16 --max-length 128")
    return str(
        drawn(
            _order({label: Importance(result["scores"][0]) for label, result in scored.items()}),
            "ranks",
            "Order of removal by scorer and block",
        )
    )


def _order(scored: Mapping[str, Importance]) -> Figure:
    """A cell for each scorer and block with its place in the order of removal, the fuller the sooner it goes."""
    count = max(len(importance.scores) for importance in scored.values())
    figure = Figure(figsize=((150 + 44 * count) / 72, (34 + 30 * len(scored)) / 72), dpi=72)
    axes = figure.add_axes(
        (150 / (150 + 44 * count), 0, 44 * count / (150 + 44 * count), 30 * len(scored) / (34 + 30 * len(scored)))
    )
    for row, importance in enumerate(scored.values()):
        for place, block in enumerate(map(int, importance.weakest_first())):
            full = 0.75 * (1 - place / count)
            axes.add_patch(Rectangle((block, row), 1, 1, facecolor=ACCENT, alpha=full, edgecolor=PAPER, linewidth=2))
            axes.text(block + 0.5, row + 0.5, str(place + 1), color=INK, fontsize=SMALL + 1, ha="center", va="center")
    axes.set(xlim=(0, count), ylim=(len(scored), 0))
    axes.set_xticks([block + 0.5 for block in range(count)], [str(block) for block in range(count)])
    axes.set_yticks([row + 0.5 for row in range(len(scored))], list(scored))
    axes.tick_params(length=0, labelsize=SMALL, labelcolor=MUTED, labeltop=True, labelbottom=False)
    axes.patch.set_visible(False)
    axes.set_frame_on(False)
    return figure


def retained() -> str:
    """Draw what is retained against the number of removed blocks."""
    with tempfile.TemporaryDirectory() as folder:
        pages.Workshop(Path(folder)).run(pages.Block("bash", "", GRID + "\n"))
        (model,) = pipeline.stored_results(Path(folder) / "grid").models.values()
    lines: dict[str, dict[int, Any]] = {}
    for row in model.headlines:
        for label, entry in row.entries.items():
            lines.setdefault(label, {})[round(row.removed_blocks * model.num_blocks)] = entry.value
    styles = looks(list(lines), {"random", "depth", "block-influence"} & lines.keys())
    figure = curves(lines, styles)
    (axes,) = figure.axes
    dress(axes, f"blocks removed, of {model.num_blocks}", "retained")
    axes.legend(loc="best", frameon=False, fontsize=SMALL, labelcolor="linecolor")
    return str(drawn(figure, "retained", "What is retained by removed blocks"))


def _scores(options: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        printed = pages.Workshop(Path(folder)).run(pages.Block("bash", "", f"layerimp score {options} --json\n"))
    (model,) = json.loads(printed)["models"].values()
    scored: dict[str, Any] = model["scored"]
    return scored


FIGURES = {
    "first-blocks": first_blocks,
    "ranks": ranks,
    "retained": retained,
}

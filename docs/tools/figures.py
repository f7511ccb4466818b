"""The figures of the pages, drawn from results on the starter."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import healed
import metrics_compared
import pages
import trained
from dressing import dress
from matplotlib.figure import Figure

from layerimp.bench import commands as pipeline
from layerimp.report.html.cells import Square, matrix
from layerimp.report.html.plots import curves
from layerimp.report.html.svg import drawn, looks
from layerimp.scorer import Importance

GRID = (
    "layerimp bench --no-baselines --scorer avss --scorer paper=avss --set paper.variant=paper --scorer lrp "
    "--scorer block-influence --scorer random --count 1 --count 3 --count 6 --repeats 3 --limit 30 "
    "--workers 0 --output grid"
)
"""It takes about a minute."""


def first_blocks() -> str:
    """The shares of AVSS by block, for the literal and the default reading."""
    found = _scores("--scorer paper=avss --set paper.variant=paper --set paper.epsilon=0.01 --scorer avss")
    series = {"literal (block_out)": found["paper"], "default (mlp_act)": found["avss"]}
    styles = looks(list(series), ())
    figure = Figure(figsize=(640 / 72, 300 / 72), dpi=72)
    axes = figure.add_axes((0.09, 0.16, 0.66, 0.76))
    for label, one in series.items():
        shares, look = one["columns"]["normalized_avss"], styles[label]
        axes.plot(shares, color=look.colour, linestyle=look.dashes, marker=look.marker, linewidth=1.8, clip_on=False)
        end = len(shares) - 1, shares[-1]
        axes.annotate(label, end, (10, 0 if "literal" in label else -14), textcoords="offset points", color=look.colour)
    axes.set_yscale("log")
    axes.set_xticks(range(len(shares)))
    dress(axes, "block", "share of AVSS")
    return str(drawn(figure, "first-blocks", "Share of AVSS by block, literal and default reading"))


def ranks() -> str:
    """Each scorer's order of removal, the first three in colour."""
    found = _scores("--scorer all --scorer paper=avss --set paper.variant=paper --samples 16 --max-length 128")
    rows = {}
    for label, one in found.items():
        order = Importance(one["scores"]).weakest_first()
        place = {block: n for n, block in enumerate(order)}
        count = len(order)
        rows[label] = [Square(1 - place[block] / count, str(place[block] + 1)) for block in range(count)]
    names = [str(block) for block in range(count)]
    return str(
        drawn(matrix(rows, names, size=(44, 30), strength=0.75), "ranks", "Order of removal by scorer and block")
    )


def retained() -> str:
    """Draw what is retained against the number of removed blocks."""
    with tempfile.TemporaryDirectory() as folder:
        pages.Workshop(Path(folder)).run(pages.Block("bash", "", GRID + "\n"))
        (model,) = pipeline.findings(Path(folder) / "grid").models.values()
    lines: dict[str, dict[float, Any]] = {}
    for row in model.headlines:
        for label, entry in row.entries.items():
            lines.setdefault(label, {})[float(round(row.removed_blocks * model.num_blocks))] = entry.value
    styles = looks(list(lines), {"random", "depth", "block-influence"} & lines.keys())
    return str(drawn(curves(lines, model.num_blocks, styles), "retained", "What is retained by removed blocks"))


def _scores(options: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        printed = pages.Workshop(Path(folder)).run(pages.Block("bash", "", f"layerimp score {options} --json\n"))
    found: dict[str, Any] = json.loads(printed)["scorers"]
    return found


FIGURES = {
    "first-blocks": first_blocks,
    "healed": lambda: healed.picture(healed.known()),
    "ranks": ranks,
    "retained": retained,
    "training": trained.picture,
    "which-metric": metrics_compared.picture,
}

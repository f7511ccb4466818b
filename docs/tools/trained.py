"""What training brings back by default, beside fixed rates and on other text: tables, and the figure of its course.

The results are those of `benchmarks/rates.py` and `benchmarks/healing_texts.py`, and lie in `benchmarks/results/`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from itertools import groupby
from statistics import fmean
from typing import Any

import pages
from dressing import dress
from matplotlib.figure import Figure
from titles import DIRECTORIES, NUM_BLOCKS, TITLES

sys.path.append(str(pages.ROOT / "benchmarks"))
from rate_figures import copying, likelihood

from layerimp.indices import read_blocks
from layerimp.report.page.curves import drawn, looks

DATA = pages.ROOT / "benchmarks" / "results" / "rates.jsonl"
TEXT_DATA = DATA.with_name("healing_texts.jsonl")
WIDTH, HEIGHT = 720, 320
RATES = (3e-5, 3e-4)
"""The fixed rates beside which the default stands."""
HEADS = [
    *("removed", "minutes", "tokens", "likelihood", "likelihood at 3e-5", "at 3e-4"),
    *("copying", "copying at 3e-5", "at 3e-4"),
]
TEXT_FORMS = {
    "tokens": "{:,.0f}",
    "divergence": "{:.3f}",
    **dict.fromkeys(("agreement", "copying", "retained"), "{:.1%}"),
    "empty": "{:.0%}",
}
"""The figures of a training text, and how they are shown."""
TEXTS = {
    "linear": "*without training*",
    "mixed": "documents, in a quarter of the rows the first half twice (by default)",
    "plain": "documents as they are",
    "longer": "documents in rows of 512 tokens, for `linear` too",
    "own": "continuations by the intact model",
    "chat": "its answers, in the chat template",
}
"""What each variant is called."""
Line = dict[str, Any]


def trainings() -> Iterator[tuple[Line, dict[float, Line]]]:
    """Yield each training by default and those at fixed rates beside it, by model, what is removed, and time."""
    order = list(TITLES)
    lines = list(map(json.loads, DATA.read_text(encoding="utf-8").splitlines()))

    def place(line: Line) -> tuple[int, int, float]:
        return order.index(name_of(line["model"])), len(read_blocks(line["blocks"])), line["minutes"]

    for line in sorted(lines, key=place):
        if line["rate"] is None:
            same = "setting", "model", "blocks", "minutes"
            beside = [other for other in lines if all(other[name] == line[name] for name in same)]
            yield line, {other["rate"]: other for other in beside if other["rate"]}


def name_of(directory: str) -> str:
    """Return the name among the titles of a model in a directory."""
    return DIRECTORIES.get(directory, directory)


def draws() -> list[list[tuple[Line, dict[float, Line]]]]:
    """Return the trainings of each row of the table: those of the same blocks and time, by draw of the text."""

    def row(training: tuple[Line, dict[float, Line]]) -> tuple[str, str, float]:
        line, _ = training
        return line["model"], line["blocks"], line["minutes"]

    return [list(same) for _, same in groupby(trainings(), row)]


def table() -> tuple[list[str], list[list[str]]]:
    """Return the head, and a row for each model and time, with the means over the draws."""
    return HEADS, [_row(*zip(*same, strict=True)) for same in draws()]


def _row(lines: tuple[Line, ...], fixed: tuple[dict[float, Line], ...]) -> list[str]:
    first, *further = lines
    name, removed = name_of(first["model"]), read_blocks(first["blocks"])
    cells = [
        f"{TITLES[name]}, {len(removed)} of {NUM_BLOCKS[name]}{f', {len(lines)} draws' if further else ''}",
        f"{first['minutes']:g}",
        f"{fmean(line['curve'][-1]['tokens'] for line in lines):,.0f}",
    ]
    for share in (likelihood, copying):
        ends = [_mean(share(line, state) for line in lines) for state in ("healed", "trained")]
        cells.append(" → ".join(filter(None, ends)))
        cells += (_mean(share(known[rate], "trained") if rate in known else None for known in fixed) for rate in RATES)
    return cells


def _mean(shares: Iterable[float | None]) -> str:
    """Show the mean over the draws; nothing if a draw lacks the share."""
    known = list(shares)
    return "" if None in known else f"{fmean(share for share in known if share is not None):.1%}"


def text_table() -> tuple[list[str], list[list[str]]]:
    """Return the head, and a row for each training text and number of documents, with a figure for each draw."""
    body = []
    for number, known in texts().items():
        for variant, name in TEXTS.items():
            if draws := known.get(variant):
                forms = TEXT_FORMS.items()
                cells = ("; ".join(form.format(line.get(each, 0)) for line in draws) for each, form in forms)
                body.append([name, str(number), *cells])
    return ["training text", "documents a task", *TEXT_FORMS], body


def texts() -> dict[int, dict[str, list[Line]]]:
    """Return the trainings on each text, draw by draw, by the number of documents that each task measures."""
    known: dict[int, dict[str, list[Line]]] = {}
    for line in map(json.loads, TEXT_DATA.read_text(encoding="utf-8").splitlines()):
        known.setdefault(int(line["limit"][0]), {}).setdefault(line["variant"], []).append(line)
    return known


def curves() -> Iterator[tuple[str, list[float], list[float]]]:
    """Yield the name of each model, the minutes of its longest training, and the distances relative to the start."""
    longest = {name_of(line["model"]): line for line, _ in trainings()}  # the last one
    for name, line in longest.items():
        points = line["curve"]
        parts = [part for part in ("divergence_now", "repeated_now") if part in points[0]]
        yield (
            TITLES[name],
            [point["minutes"] for point in points],
            [fmean(point[part] / points[0][part] for part in parts) for point in points],
        )


def picture() -> str:
    """Draw the figure."""
    courses = list(curves())
    styles = looks([name for name, _, _ in courses], ())
    figure = Figure(figsize=(WIDTH / 72, HEIGHT / 72), dpi=72)
    axes = figure.add_axes((0.08, 0.15, 0.74, 0.75))
    for name, minutes, shares in courses:
        look = styles[name]
        axes.plot(minutes, shares, color=look.colour, linestyle=look.dashes, marker=look.marker, linewidth=1.8)
        axes.annotate(
            name, (minutes[-1], shares[-1]), (10, 0), textcoords="offset points", color=look.colour, va="center"
        )
    axes.set_ylim(0, None)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    dress(axes, "minutes of training", "distance, relative to the start")
    return str(drawn(figure, "training", "How far models stay from the intact one, by minutes of training"))

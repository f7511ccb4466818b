"""The table of a scorer's scores: for blocks, with seams between them, or for attention and MLP separately."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerimp.cli.bars import bars
from layerimp.cli.columns import Column, Fits, packed
from layerimp.report import cuts
from layerimp.steps import sublayers_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.table import Table

    from layerimp.report.data import Report
    from layerimp.scorer import Importance
    from layerimp.steps import Step

STYLES = {"✗": "red", "½": "yellow"}


def scores(report: Report, label: str, fits: Fits, *, plain: bool = False) -> list[Table]:
    """Show all scores by depth, with every column, and with marks for what the plan removes.

    Args:
        report: The report.
        label: The scorer's label.
        fits: Whether a table fits the screen.
        plain: Whether the screen shows only ASCII.
    """
    importance = report.importance[label]
    text = report.calibration
    where = f" ({text['rows']} rows, {text['tokens']:,} tokens)" if text else ""
    if any(len(sublayers_of(step)) == 1 for step in importance.blocks):
        title = f"{label}: importance of attention and MLP in {report.num_blocks} blocks{where}"
        return _halves(title, importance, fits)
    seams = sum(isinstance(step, str) for step in importance.blocks)
    what = f"{report.num_blocks} blocks" + (f" and {seams} seams" if seams else "")
    plan = report.plans.get(label)
    return _steps(f"{label}: importance of {what}{where}", importance, plan.blocks if plan else None, fits, plain=plain)


def _steps(title: str, importance: Importance, taken: Sequence[Step] | None, fits: Fits, *, plain: bool) -> list[Table]:
    """Make a row for each block and each seam; a seam is indented between its two blocks."""
    order = sorted(range(len(importance.blocks)), key=lambda row: sublayers_of(importance.blocks[row]))
    steps = [importance.blocks[row] for row in order]
    seams = any(isinstance(step, str) for step in steps)
    width = max(len(str(step)) for step in steps)
    names = [str(step) if isinstance(step, str) or not seams else str(step).ljust(width + 1) for step in steps]
    columns = [
        Column(name.replace("_", "\n"), [f"{values[row]:.4g}" for row in order])
        for name, values in _columns(importance).items()
    ]
    scale, drawn = bars([importance.scores[row] for row in order], plain=plain)
    columns.insert(1, Column(scale, drawn, "left"))
    styles = None
    if taken is not None:
        marks = [cuts.marked(step, taken) for step in steps]
        columns.insert(2, Column("removed", marks, "left"))
        styles = [STYLES.get(mark[:1], "") for mark in marks]
    return packed(title, Column("step" if seams else "block", names), columns, fits, styles=styles)


def _halves(title: str, importance: Importance, fits: Fits) -> list[Table]:
    """Make a row for each block, with the numbers of its attention and its MLP side by side."""
    rows = {str(step): row for row, step in enumerate(importance.blocks)}
    blocks = sorted({part.block for step in importance.blocks for part in sublayers_of(step)})
    columns = []
    for name, values in _columns(importance).items():
        for part, key in (("attention", "attn"), ("MLP", "mlp")):
            found = [rows.get(f"{block}.{key}") for block in blocks]
            cells = ["" if row is None else f"{values[row]:.4g}" for row in found]
            columns.append(Column(f"{part}\n{name.replace('_', ' ')}", cells))
    return packed(title, Column("block", list(map(str, blocks))), columns, fits)


def _columns(importance: Importance) -> Mapping[str, Sequence[float]]:
    """Return the numbers to show, by name: the scores, and further columns."""
    columns = importance.columns or {"score": importance.scores}
    name = next((name for name, values in columns.items() if values == importance.scores), "score")
    return {name: importance.scores, **columns}

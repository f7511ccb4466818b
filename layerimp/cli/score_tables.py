"""The table of a scorer's scores: blocks, with seams between them, or attention and MLP apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table

from layerimp.cli.tables import shown
from layerimp.report import cuts
from layerimp.steps import sublayers_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from layerimp.report.data import Report
    from layerimp.scorer import Importance
    from layerimp.steps import Step

STYLES = {"✗": "red", "½": "yellow"}


def scores(report: Report, label: str) -> Table:
    """All that was scored, by depth, with every column; marked is what goes, in whole or by a half."""
    importance = report.importance[label]
    text = report.calibration
    where = f" ({text['rows']} rows, {text['tokens']:,} tokens)" if text else ""
    apart = any(len(sublayers_of(step)) == 1 for step in importance.blocks)
    seams = 0 if apart else sum(isinstance(step, str) for step in importance.blocks)
    what = f"{report.num_blocks} blocks" + (f" and {seams} seams" if seams else "")
    title = f"{label}: importance of {'attention and MLP in ' if apart else ''}{what}{where}"
    table = Table(title=shown(title), box=SIMPLE_HEAD, padding=(0, 1), collapse_padding=True)
    if apart:
        _add_halves(table, importance)
    else:
        plan = report.plans.get(label)
        _add_steps(table, importance, plan.blocks if plan else None, seams=bool(seams))
    return table


def _add_steps(table: Table, importance: Importance, taken: Sequence[Step] | None, *, seams: bool) -> None:
    """Blocks and seams by depth: a seam lies between its two blocks, in a column of its own."""
    table.add_column("block", justify="right")
    if seams:
        table.add_column("seam", justify="right")
    columns = _columns(importance)
    for name in columns:
        table.add_column(shown(name.replace("_", "\n")), justify="right")
    if taken is not None:
        table.add_column("removed")
    for row in sorted(range(len(importance.blocks)), key=lambda row: sublayers_of(importance.blocks[row])):
        step = importance.blocks[row]
        names = [str(step)] if not seams else [str(step), ""] if isinstance(step, int) else ["", str(step)]
        numbers = (f"{values[row]:.4g}" for values in columns.values())
        mark = "" if taken is None else cuts.marked(step, taken)
        cells = [*names, *numbers, *([] if taken is None else [mark])]
        table.add_row(*cells, style=STYLES.get(mark[:1], ""))


def _add_halves(table: Table, importance: Importance) -> None:
    """A row for each block, with the numbers of its attention and of its MLP side by side."""
    rows = {str(step): row for row, step in enumerate(importance.blocks)}
    columns = _columns(importance)
    table.add_column("block", justify="right")
    for name in columns:
        for part in ("attention", "MLP"):
            table.add_column(shown(f"{part}\n{name.replace('_', ' ')}"), justify="right")
    for block in sorted({part.block for step in importance.blocks for part in sublayers_of(step)}):
        found = [rows.get(f"{block}.{part}") for part in ("attn", "mlp")]
        numbers = ("" if row is None else f"{values[row]:.4g}" for values in columns.values() for row in found)
        table.add_row(str(block), *numbers)


def _columns(importance: Importance) -> Mapping[str, Sequence[float]]:
    """The numbers to show, by name: the scores, and further columns."""
    columns = importance.columns or {"score": importance.scores}
    if not any(values == importance.scores for values in columns.values()):
        columns = {"score": importance.scores, **columns}
    return columns

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

    from layerimp.report.results.comparison import ModelResults
    from layerimp.report.results.scores import Scored
    from layerimp.steps import Step

STYLES = {"✗": "red", "½": "yellow"}


def scores(model: ModelResults, label: str, fits: Fits, *, plain: bool = False) -> list[Table]:
    """Show all scores by depth, with every column, and with marks for what the plan removes.

    Args:
        model: The results for the model.
        label: The scorer's label.
        fits: Whether a table fits the screen.
        plain: Whether the screen shows only ASCII.
    """
    scored, text = model.scored[label], model.calibration
    where = f" ({text['rows']} rows, {text['tokens']:,} tokens)" if text else ""
    if any(len(sublayers_of(step)) == 1 for step in scored.steps):
        return _halves(f"{label}: importance of attention and MLP in {model.num_blocks} blocks{where}", scored, fits)
    seams = sum(isinstance(step, str) for step in scored.steps)
    what = f"{model.num_blocks} blocks" + (f" and {seams} seams" if seams else "")
    taken = next((removal.models[0].blocks for removal in model.removals if removal.label == label), None)
    return _steps(f"{label}: importance of {what}{where}", scored, taken, fits, plain=plain)


def _steps(title: str, scored: Scored, taken: Sequence[Step] | None, fits: Fits, *, plain: bool) -> list[Table]:
    """Make a row for each block and each seam; a seam is indented between its two blocks."""
    steps, scores = scored.steps, scored.scores[0]
    seams = any(isinstance(step, str) for step in steps)
    width = max(len(str(step)) for step in steps)
    names = [str(step) if isinstance(step, str) or not seams else str(step).ljust(width + 1) for step in steps]
    columns = [
        Column(name.replace("_", "\n"), [f"{value:.4g}" for value in values])
        for name, values in _columns(scored).items()
    ]
    scale, drawn = bars(scores, plain=plain)
    columns.insert(1, Column(scale, drawn, "left"))
    styles = None
    if taken is not None:
        marks = [cuts.marked(step, taken) for step in steps]
        columns.insert(2, Column("removed", marks, "left"))
        styles = [STYLES.get(mark[:1], "") for mark in marks]
    return packed(title, Column("step" if seams else "block", names), columns, fits, styles=styles)


def _halves(title: str, scored: Scored, fits: Fits) -> list[Table]:
    """Make a row for each block, with the numbers of its attention and its MLP side by side."""
    rows = {str(step): row for row, step in enumerate(scored.steps)}
    blocks = sorted({part.block for step in scored.steps for part in sublayers_of(step)})
    columns = []
    for name, values in _columns(scored).items():
        for part, key in (("attention", "attn"), ("MLP", "mlp")):
            places = [rows.get(f"{block}.{key}") for block in blocks]
            cells = ["" if row is None else f"{values[row]:.4g}" for row in places]
            columns.append(Column(f"{part}\n{name.replace('_', ' ')}", cells))
    return packed(title, Column("block", list(map(str, blocks))), columns, fits)


def _columns(scored: Scored) -> Mapping[str, Sequence[float]]:
    """Return the numbers to show, by name: the scores, and further columns."""
    scores = scored.scores[0]
    columns = scored.columns or {"score": scores}
    name = next((name for name, values in columns.items() if values == scores), "score")
    return {name: scores, **columns}

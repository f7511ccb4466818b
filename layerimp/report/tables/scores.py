"""The tables of scores, for blocks, with seams between them, or for attention and MLP; and the table of a search."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from layerimp._table import Column, Table
from layerimp.report import words
from layerimp.report.results.comparison import ModelResults
from layerimp.report.results.scores import Scored
from layerimp.report.results.search import QualitySearch
from layerimp.report.words import share_cell
from layerimp.steps import Step, sublayers_of

_STYLES = {"✗": "red", "½": "yellow"}


def scores(model: ModelResults, label: str) -> Table:
    """Return all scores of a scorer by depth, with every column, and with marks for what its plan removes.

    Of several repeats, these are the numbers of the first.
    """
    scored, text = model.scored[label], model.calibration
    where = f" ({text.rows} rows, {text.tokens:,} tokens)" if text else ""
    if any(len(sublayers_of(step)) == 1 for step in scored.steps):
        return _halves(f"{label}: importance of attention and MLP in {model.num_blocks} blocks{where}", scored)
    seams = sum(isinstance(step, str) for step in scored.steps)
    what = f"{model.num_blocks} blocks" + (f" and {seams} seams" if seams else "")
    taken = next((removal.models[0].blocks for removal in model.removals if removal.label == label), None)
    return _steps(f"{label}: importance of {what}{where}", scored, taken)


def _steps(title: str, scored: Scored, taken: Sequence[Step] | None) -> Table:
    """Return a row for each block and each seam; a seam is indented between its two blocks."""
    steps = scored.steps
    seams = any(isinstance(step, str) for step in steps)
    width = max(len(str(step)) for step in steps)
    names = [str(step) if isinstance(step, str) or not seams else str(step).ljust(width + 1) for step in steps]
    score, *others = (Column(name.replace("_", "\n"), values) for name, values in _numbers(scored).items())
    columns = [Column("step" if seams else "block", names), replace(score, drawn="bars")]
    styles = []
    if taken is not None:
        marks = [words.marked(step, taken) for step in steps]
        columns.append(Column("removed", marks, "left"))
        styles = [_STYLES.get(mark[:1], "") for mark in marks]
    return Table([*columns, *others], title, styles=styles)


def _halves(title: str, scored: Scored) -> Table:
    """Return a row for each block, with the numbers of its attention and its MLP side by side."""
    rows = {str(step): row for row, step in enumerate(scored.steps)}
    blocks = sorted({part.block for step in scored.steps for part in sublayers_of(step)})
    columns = [Column("block", list(map(str, blocks)))]
    for name, values in _numbers(scored).items():
        for part, key in (("attention", "attn"), ("MLP", "mlp")):
            places = [rows.get(f"{block}.{key}") for block in blocks]
            cells = [None if row is None else values[row] for row in places]
            columns.append(Column(f"{part}\n{name.replace('_', ' ')}", cells))
    return Table(columns, title)


def _numbers(scored: Scored) -> Mapping[str, Sequence[float]]:
    """Return the numbers to show, by name: the scores, and further columns."""
    scores = scored.scores[0]
    columns = scored.columns or {"score": scores}
    name = next((name for name, values in columns.items() if values == scores), "score")
    return {name: scores, **columns}


def removable(search: QualitySearch, num_blocks: int) -> Table:
    """Return how many blocks may be removed, from the most to the fewest, and what is then retained."""
    most = [search.removable[label] for label in search.order]
    what = "retained" if search.keep_of == "quality" else "agreement"
    columns = [
        Column("model", search.order, "left"),
        Column("removable\nblocks", [each.count for each in most]),
        Column(f"{what}\nsearched", [share_cell(each.retained) for each in most]),
        Column(f"{what}\nconfirmed", [share_cell(each.confirmed) for each in most]),
        Column("tried", [", ".join(str(model.count) for model in each.tried) for each in most], "left"),
    ]
    kept = f"{100 * search.keep:.4g} % {'is retained' if what == 'retained' else 'of the predictions agree'}"
    title = f"removable blocks (of {num_blocks}) while {kept}"
    return Table(columns, title, notes=list(_notes(search)))


def _notes(search: QualitySearch) -> Iterator[str]:
    what = "rows of held-out calibration text" if search.held_out else f"documents of {', '.join(search.measured_on)}"
    yield f"searched: on the half of the {what} used by the search"
    yield f"confirmed: on the other half{', as are all figures below' * (search.keep_of == 'quality')}"
    for label in search.order:
        reached = search.removable[label]
        if reached.before_confirmation > reached.count:
            counts = f"the search found {reached.before_confirmation}, and the other half confirmed {reached.count}"
            yield (
                f"{label}: {counts}; since both halves took part in the choice, the confirmed share looks slightly "
                "better than it is"
            )
        elif not reached.count and reached.tried:
            least = reached.tried[0]
            yield f"{label}: no block can be removed; {least.count} removed leaves {share_cell(least.retained)}"

"""The tables of `layerimp compare`: how far models are from the intact one, and their tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from layerimp._table import Cell, Column, Table
from layerimp.fidelity import Fidelity
from layerimp.models.origin import model_name
from layerimp.report.results.compared import ModelComparison
from layerimp.report.results.measures import Difference, Flips, Measured
from layerimp.report.tables.distances import FIGURES, SHARES
from layerimp.report.tables.numbers import number, percentage, share_cell, to_either_side, two_digits

_NOTHING = Cell(text="-")
_FIDELITY = (
    "divergence: KL from the intact model's prediction of each token or label, in nats, ± one standard error; "
    "agreement: the share of predictions with the same top token or label"
)
_COPYING = "copying: the share of tokens predicted right where a row repeats itself"
_GENERATION = (
    "same tokens: how many greedy tokens are equal before the first difference; empty, loops: the share of "
    "continuations without text, and that end in a loop"
)
_TASKS = (
    "± one standard error over the documents; to intact: the difference document by document, with its 95 % interval; "
    "*: p < 0.05, corrected for the number of models; flips: other answers than the intact model's, and how many went "
    "from right to wrong and back; retained: 100 % is the intact model, 0 % a model that knows nothing"
)


def tables(comparison: ModelComparison) -> list[Table]:
    """Return the tables of a comparison: fidelity, and tasks if there are any."""
    fidelity = [fidelity_table(comparison)] if comparison.fidelity else []
    return [*fidelity, task_table(comparison)] if comparison.intact.metrics else fidelity


def fidelity_table(comparison: ModelComparison) -> Table:
    """Return a row for each model with its size and its distance from the intact model, which comes first."""
    text, name = comparison.text, model_name(comparison.intact.model)
    known = [comparison.fidelity.get(label) for label in comparison.models]
    sizes = [comparison.intact.size, *(model.size for model in comparison.models.values())]
    columns = [
        Column("model", [name, *comparison.models], "left"),
        Column("blocks", [size.blocks for size in sizes]),
        Column("bytes", [size.bytes for size in sizes]),
        *fidelity_columns(known),
    ]
    title = f"how far from {name} ({text.rows} rows, {text.tokens:,} tokens of {text.source})"
    return Table(columns, title, notes=list(_fidelity_notes(known)))


def fidelity_columns(known: Sequence[Fidelity | None]) -> Iterator[Column]:
    """Yield the columns of fidelity: first the intact model's own figures, then a row for each other model."""
    measured = [fidelity for fidelity in known if fidelity is not None]
    for name, figure in FIGURES.items():
        if all(figure.of(fidelity) is None for fidelity in measured):
            continue
        show = percentage if name in SHARES else number
        own = next((value for each in measured if (value := figure.intact(each)) is not None), None)
        cells = [Cell() if each is None else _cell(figure.of(each), show, figure.stderr(each)) for each in known]
        yield Column(f"{name} {'↑' if figure.higher_is_better else '↓'}", [_cell(own, show), *cells])


def _cell(value: float | None, show: Callable[[float], str], stderr: float | None = None) -> Cell:
    if value is None:
        return Cell()
    return Cell(value, show(value), "" if stderr is None else f"± {two_digits(stderr)}", stderr)


def _fidelity_notes(known: Sequence[Fidelity | None]) -> Iterator[str]:
    yield _FIDELITY
    if any(each and each.copying for each in known):
        yield _COPYING
    if any(each and each.generation for each in known):
        yield _GENERATION


def task_table(comparison: ModelComparison) -> Table:
    """Return a row for each model and each metric of the tasks that count; members of groups are left out."""
    rows = list(_rows(comparison))
    heads = (
        "task",
        "metric",
        "model",
        "value",
        "to intact",
        "p",
        "flips",
        "right to\nwrong",
        "wrong to\nright",
        "retained",
    )
    sides = ("left", "left", "left", *["right"] * 7)
    columns = [
        Column(head, [row[place] for row in rows], side)  # type: ignore[arg-type]
        for place, (head, side) in enumerate(zip(heads, sides, strict=True))
    ]
    return Table(columns, "tasks, document by document", naming=3, notes=[_TASKS])


def _rows(comparison: ModelComparison) -> Iterator[list[str | Cell]]:
    counted = {
        task for model in comparison.models.values() for task in (model.retained.tasks if model.retained else ())
    }
    for task, metrics in comparison.intact.metrics.items():
        if task not in counted:
            continue
        for name, intact in metrics.items():
            arrow = "↑" if intact.higher_is_better else "↓"
            yield [task, f"{name} {arrow}", model_name(comparison.intact.model), _value(intact), *[Cell()] * 6]
            for label, model in comparison.models.items():
                own = model.metrics.get(task, {}).get(name)
                if own is None:
                    continue
                difference = model.differences.get(task, {}).get(name)
                cells = [_value(own), *_contrast(difference), *_flips(own.flips)]
                first_listed = name == next(iter(metrics))
                kept = model.retained.tasks.get(task) if model.retained and first_listed else None
                yield ["", "", label, *cells, share_cell(kept) if first_listed else Cell()]


def _value(metric: Measured) -> Cell:
    error = to_either_side(metric.value, metric.ends, two_digits)
    return Cell(metric.value, number(metric.value), error, metric.stderr)


def _contrast(difference: Difference | None) -> list[Cell]:
    """Show a difference with its interval and a mark if it is significant, and its p-value."""
    if difference is None:
        return [_NOTHING, _NOTHING]
    span = "" if None in (difference.low, difference.high) else f" [{difference.low:+.2g}, {difference.high:+.2g}]"
    mark = " *" if difference.tells else ""
    p = Cell() if difference.p is None else Cell(difference.p, f"{difference.p:.2g}")
    return [Cell(difference.mean, f"{difference.mean:+.3g}{span}{mark}"), p]


def _flips(flips: Flips | None) -> list[Cell]:
    if flips is None:
        return [Cell()] * 3
    share = Cell(text="-") if flips.share is None else Cell(flips.share, percentage(flips.share))
    return [share, *(Cell(count, f"{count:g}") for count in (flips.to_wrong, flips.to_right))]

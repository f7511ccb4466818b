"""The tables of a run or a grid: each is built once, and terminal, notebook, page and files show the same.

Those over several models, tasks and amounts are here, in the layout of the AVSS paper's table 1. `models` has those of
one model; both arrange the records of `data_frame`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from layerimp._table import Cell, Column, Table, escaped_for_latex
from layerimp.defaults import ORIGINAL
from layerimp.report.results.comparison import Compared
from layerimp.report.results.models import Amount
from layerimp.report.results.rows import RETAINED
from layerimp.report.results.search import QualitySearch
from layerimp.report.retained import LEVELS
from layerimp.report.tables.data_frame import FIDELITY, QUALITY, Record, as_csv, model_records, records, shown
from layerimp.report.tables.fidelity_figures import figures_note
from layerimp.report.tables.models import (
    MISSING,
    better,
    fidelity_columns,
    intact_name,
    marked,
    notes_on,
    pivoted,
    scores,
    side_by_side,
)
from layerimp.report.words import (
    amount_asked,
    amount_name,
    between,
    measured_on,
    parameters,
    percentage,
    removable_at,
    share_cell,
)

_REMOVABLE = (
    "removable: the largest number of blocks without which the share is retained, by the worst, as it is without each "
    "smaller measured number; mean ± half of its 95 % interval over the repeats; ≥ if none was too many in some repeat"
)
_FLIPS = (
    "flips: answers to a task that are others than the intact model's; to wrong / back: how many went from right to "
    "wrong, and from wrong to right"
)


def quality(compared: Compared) -> list[Table]:
    """Return the metrics of all models, a table for each pruner and amount, or one table of intact models.

    The rows are metrics, the columns the intact model and the contenders: the layout of the AVSS paper's table 1.
    Models without other numbers of blocks stand beside each other.
    """
    models = compared.models.values()
    known = [each for model in models for each in shown(compared.design, model) if each.kind == QUALITY]
    pruners = {label: number for number, label in enumerate(compared.design.pruners)}
    known.sort(key=lambda record: (pruners.get(record.pruner, -1), record.removed_blocks or 0))
    places: dict[tuple[str, Amount | None], list[Record]] = {}
    for record in known:
        places.setdefault((record.pruner, record.amount), []).append(record)
    intact = places.pop(("", None), [])
    smaller = list(places.values()) or ([[]] if intact else [])
    return [_quality(compared, intact, here) for here in smaller]


def _quality(compared: Compared, intact: Sequence[Record], smaller: Sequence[Record]) -> Table:
    """Return the table of a place. What all rows have in common, the model or the shares removed, is in the title."""
    lines = pivoted(smaller or intact, lambda each: (each.task, each.model, each.metric), lambda each: each.label)
    firsts = [next(iter(line.values())) for line in lines.values()]
    for record in intact:
        lines.get((record.task, record.model, record.metric), {})[ORIGINAL] = record
    columns = list(_naming(compared, firsts))
    naming, repeated = len(columns), compared.design.repeats > 1
    labels = _contenders(compared, (label for line in lines.values() for label in line if label != ORIGINAL))
    for label in (ORIGINAL, *labels):
        missing = Cell() if label == ORIGINAL else MISSING
        cells = [line[label].cell(repeated=repeated) if label in line else missing for line in lines.values()]
        alone = not smaller and len(compared.models) == 1
        columns.append(Column(intact_name(compared, compared.model) if alone else label, cells))
    if len(labels) == 1 and any(first.retained is not None for first in firsts):
        columns.append(Column("retained", [_percentage(first.retained) for first in firsts]))
    place = [smaller[0].pruner, amount_name(smaller[0].amount or 0)] if smaller else []
    title = ", ".join(filter(None, (_subject(compared), *place)))
    reductions = [_reduction(line.values()) for line in lines.values()]
    if len(set(reductions)) > 1:
        columns.append(Column("parameter reduction", reductions, "left"))
    elif reductions[0]:
        title += f" ({reductions[0]})"
    return Table(columns, title, naming=naming, notes=list(notes_on(compared)))


def _contenders(compared: Compared, known: Iterable[str]) -> list[str]:
    """Return labels in the order of the design; those of named blocks, which no scorer chose, come last."""
    present = dict.fromkeys(known)
    designed = [label for label in compared.design.contenders if label in present]
    return [*designed, *(label for label in present if label not in designed)]


def _subject(compared: Compared) -> str:
    """Say of what the table is. A page whose only model has no label names it elsewhere."""
    if len(compared.models) > 1:
        return "quality"
    label = compared.model.label
    return label and f"quality of {label}"


def _naming(compared: Compared, firsts: Sequence[Record]) -> Iterator[Column]:
    """Yield the columns that name the rows: the data set, the model if there are several, and the metric."""
    counts = ["" if first.documents is None else f" (n = {first.documents:,})" for first in firsts]
    yield Column("data set", [f"{marked(first)}{count}" for first, count in zip(firsts, counts, strict=True)], "left")
    if len(compared.models) > 1:
        yield Column("model", [first.model for first in firsts], "left")
    yield Column("metric", [better(first) for first in firsts], "left")


def _percentage(share: float | None) -> Cell:
    return Cell() if share is None else Cell(share, percentage(share))


def _reduction(line: Iterable[Record]) -> str:
    """Show the shares of blocks and parameters removed; ranges if scorers remove more or fewer, or other blocks."""
    smaller = [record for record in line if record.label != ORIGINAL]
    if not smaller:
        return ""
    blocks = [record.removed_blocks or 0 for record in smaller]
    return f"{between(min(blocks), max(blocks))} of blocks, {_parameters(smaller)}"


def _parameters(smaller: Iterable[Record]) -> str:
    ends = ((each.removed_parameters_low, each.removed_parameters_high) for each in smaller)
    return parameters(end or 0 for both in ends for end in both)


def fidelity(compared: Compared) -> list[Table]:
    """Return how far pruned models are from the intact one, a table per model, pruner and amount."""
    places: dict[tuple[str, str, Amount | None], list[Record]] = {}
    for record in records(compared):
        if record.kind == FIDELITY:
            places.setdefault((record.model, record.pruner, record.amount), []).append(record)
    tables = []
    for (name, pruner, amount), known in places.items():
        lines = pivoted(known, lambda each: each.label, lambda each: (each.task, each.metric))
        columns = fidelity_columns(list(lines.values()), repeated=compared.design.repeats > 1)
        place = ", ".join(filter(None, (pruner, amount_name(amount or 0))))
        tasks = {record.task for record in known}
        notes = [figures_note({record.metric for record in known})] * ("" in tasks) + [_FLIPS] * bool(tasks - {""})
        title = f"fidelity: how far from the intact {name or 'model'} ({place})"
        tables.append(Table([Column("model", [ORIGINAL, *lines], "left"), *columns], title, notes=notes))
    return tables


def summaries(compared: Compared) -> list[Table]:
    """Return what is retained by scorer, healer and amount, a table per model and pruner, best contender first."""
    tables = []
    for model in compared.models.values():
        known = sorted(
            (record for record in model_records(compared.design, model) if record.task == RETAINED),
            key=lambda record: record.removed_blocks or 0,
        )
        for pruner in dict.fromkeys(row.pruner for row in model.headlines):
            here = [record for record in known if record.pruner == pruner]
            title = f"what is retained of {model.label} ({pruner}), measured on {measured_on(model)}"
            tables.append(replace(_summary(compared, here), title=title))
    return tables


def _summary(compared: Compared, known: Sequence[Record]) -> Table:
    """Return what is retained by contender and amount; of several averages, the first, which is the lowest."""
    lines = pivoted(known, lambda each: each.label, lambda each: each.amount)
    present = _contenders(compared, lines)
    present.sort(key=lambda label: (-len(lines[label]), -sum(record.mean for record in lines[label].values())))
    columns = [Column("scorer", present, "left")]
    for amount in dict.fromkeys(record.amount for record in known):
        by_label = {label: lines[label][amount] for label in present if amount in lines[label]}
        head = f"{amount_asked(amount or 0)},\n{_parameters(by_label.values())}"
        repeated = compared.design.repeats > 1
        cells = [by_label[label].cell(repeated=repeated) if label in by_label else MISSING for label in present]
        columns.append(Column(head, cells))
    return Table(columns, notes=list(notes_on(compared)))


def removables(compared: Compared) -> list[Table]:
    """Return how many blocks may be removed, a table per model and pruner, ordered by the middle level."""
    tables = []
    for name, model in compared.models.items():
        for pruner, here in model.by_removable.items():
            columns = [
                Column(f"{level:.0%} retained", [removable_at(each.levels[level]) for each in here]) for level in LEVELS
            ]
            tried = ", ".join(map(str, sorted({count for each in here for count in each.measured})))
            title = f"removable blocks of {name} ({pruner}), of {model.num_blocks}; measured without {tried}"
            tables.append(
                Table([Column("scorer", [each.label for each in here], "left"), *columns], title, notes=[_REMOVABLE])
            )
    return tables


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
    return Table(columns, title, notes=list(_search_notes(search)))


def _search_notes(search: QualitySearch) -> Iterator[str]:
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


def first(compared: Compared) -> list[Table]:
    """Return the tables that a notebook shows: the models side by side, or over amounts and repeats what is retained.

    If nothing was removed or measured, these are the scores.
    """
    if compared.design.repeats > 1 or len(compared.design.amounts) > 1:
        return [*summaries(compared), *removables(compared)]
    tables = []
    for model in compared.models.values():
        if model.removals or model.metrics or model.footprint:
            tables.append(side_by_side(compared, model))
        else:
            tables += [scores(model, label) for label in model.scored]
    return tables


def notes(tables: Iterable[Table]) -> list[str]:
    """Return the lines that explain tables, each once."""
    return list(dict.fromkeys(note for table in tables for note in table.notes))


def as_markdown(compared: Compared) -> str:
    """Return the tables in Markdown."""
    tables = _for_papers(compared)
    return "\n".join([*(table.markdown() for table in tables), *(f"- {note}" for note in notes(tables)), ""])


def as_latex(compared: Compared) -> str:
    """Return the tables in LaTeX, for a document that uses `booktabs`."""
    tables = _for_papers(compared)
    comments = (f"% {escaped_for_latex(note)}" for note in notes(tables))
    return "\n".join([*(table.latex() for table in tables), *comments, ""])


def _for_papers(compared: Compared) -> list[Table]:
    return [*quality(compared), *fidelity(compared), *removables(compared)]


FORMATS: Mapping[str, Callable[[Compared], str]] = {"markdown": as_markdown, "latex": as_latex, "csv": as_csv}
"""The formats of `layerimp report` for papers and programs."""

"""The tables of one model: its scores, what was pruned from it side by side, and the sizes that were reached."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from layerimp._table import Cell, Column, Table
from layerimp.defaults import ORIGINAL
from layerimp.models.origin import model_name
from layerimp.pruner import counted
from layerimp.report import words
from layerimp.report.results.comparison import Compared, Design, ModelResults
from layerimp.report.results.data import documents_asked
from layerimp.report.results.measures import Measured
from layerimp.report.results.models import Removal
from layerimp.report.results.rows import RETAINED
from layerimp.report.results.scores import Scored
from layerimp.report.tables.data_frame import COST, FIDELITY, QUALITY, SIZE, TO_RIGHT, TO_WRONG, Record, shown

"""The styles of rows, by their marks."""
REMOVED = "removed"
"""The kind of the columns for the removed blocks and the share of the parameters."""
_KINDS = (REMOVED, QUALITY, SIZE, COST, FIDELITY)
"""The kinds of the columns of a table with a row for each model, in their order."""
MISSING = Cell(text="-")
"""What a model lacks that others have."""
_BLOCKS_WIDTH = 18
"""The width at which a terminal that lacks room breaks long lists of blocks."""
_ONE_REPEAT = "± one standard error over the documents"
_REPEATS = (
    "mean ± half of the 95 % confidence interval over the repeats, if they differ (standard error over the "
    "documents); for perplexities the geometric mean"
)
_BEST = (
    "bold: not beaten by any other with as many blocks removed; compared document by document over all pairs, with "
    "Holm's correction, and best if it is the only one"
)
MARK = "†"
"""The mark of a task on which the intact model hardly does better than knowing nothing."""
AT_FLOOR = (
    f"{MARK}: the intact model is less than two standard errors better than a model that knows nothing; for an average "
    "this holds in each part, with Bonferroni's correction"
)
_RETAINED = (
    "retained: 100 % is the intact model, 0 % a model that knows nothing; worst: the lower of likelihood and accuracy"
)
Row = TypeVar("Row", bound=Hashable)
Head = TypeVar("Head", bound=Hashable)


def pruned(model: ModelResults) -> list[Removal]:
    """Return what was removed, from the most blocks to the fewest, without plans whose removal failed."""
    places = {label: place for place, label in enumerate(model.order)}
    ranked = sorted(model.removals, key=lambda removal: places[removal.label])
    return [removal for removal in ranked if removal.models[0].size is not None]


def intact_name(compared: Compared, model: ModelResults) -> str:
    """Return the name of the intact model: `original` beside pruned models, its own name if it stands alone."""
    return ORIGINAL if pruned(model) else model_name(compared.design.models[model.label].model)


def pivoted(
    known: Iterable[Record], row: Callable[[Record], Row], head: Callable[[Record], Head]
) -> dict[Row, dict[Head, Record]]:
    """Return records by row and column of a table; of several for one cell, the first."""
    lines: dict[Row, dict[Head, Record]] = {}
    for record in known:
        lines.setdefault(row(record), {}).setdefault(head(record), record)
    return lines


def side_by_side(compared: Compared, model: ModelResults) -> Table:
    """Return a table with a row for the intact model, and one for each removal, whose blocks are empty if they differ.

    Its columns, by kind: what was removed (`REMOVED`), what is retained and other metrics (`QUALITY`), how much was
    removed (`SIZE`), time and space (`COST`), and how far the model is from the intact one (`FIDELITY`).
    """
    removals = pruned(model)
    known = pivoted(shown(compared.design, model), lambda each: (each.pruner, each.amount, each.label), _kind)
    places = [("", None, ORIGINAL), *((each.pruner, each.amount, each.label) for each in removals)]
    lines = [known.get(place, {}) for place in places]
    labels = [removal.label for removal in removals]
    names = [f"{each.label} ({each.pruner})" if labels.count(each.label) > 1 else each.label for each in removals]
    columns = [Column("model", [intact_name(compared, model), *names], "left")]
    if removals:
        plans = [removal.models[0].blocks for removal in removals]
        several = len(set(map(len, plans))) > 1
        always = [words.always([model.blocks for model in removal.models]) for removal in removals]
        blocks = [f"{len(plan)}: " * several + same for plan, same in zip(plans, always, strict=True)]
        columns.append(Column("removed\nblocks", ["", *blocks], "left", _BLOCKS_WIDTH, kind=REMOVED))
    keys = dict.fromkeys(key for line in lines for key in line if removals or key[0] != SIZE)
    ordered = sorted(keys, key=lambda key: (_KINDS.index(key[0]), key[1] != RETAINED))
    columns += [_column([line.get(key) for line in lines], kind=key[0]) for key in ordered]
    return Table(columns, _title(compared.design, model, removals), notes=list(notes_on(compared)))


def _kind(record: Record) -> tuple[str, str, str]:
    """Return the kind of a column, and what tells it from others of its kind."""
    kind = REMOVED if (record.kind, record.metric) == (SIZE, "parameters") else record.kind
    return kind, record.task, record.metric


def _title(design: Design, model: ModelResults, removals: Sequence[Removal]) -> str:
    """Say of what the table is, and how much was removed."""
    whole, plans = model.num_blocks, [removal.models[0].blocks for removal in removals]
    counts = sorted(set(map(len, plans)))
    asked = documents_asked(design.limit, design.limits)
    limit = f", {asked}" if asked else ""
    if not plans:
        return f"{model.label}, {counted(whole)}{limit}"
    if model.search is not None:
        share = "on the confirming documents"
    elif len(counts) > 1:
        share = f"{counts[0]} to {counts[-1]} of {whole} blocks removed"
    else:
        share = f"{counts[0]} of {whole} blocks ({counts[0] / whole:.2%}) removed"
    return f"comparison of {model.label}, {share}{limit}"


def _column(line: Sequence[Record | None], *, kind: str) -> Column:
    """Return the column of a number of each model, the intact one first."""
    intact, known = line[0], next(record for record in line if record is not None)
    if kind in (REMOVED, SIZE):
        head = "number of\nblocks" if known.metric == "blocks" else f"{known.metric}\nremoved"
        return Column(head, [Cell(), *map(_gone, line[1:])], kind=kind)
    if kind == COST:
        return Column(known.metric, [_cost(record, intact) for record in line], kind=kind)
    cells = [MISSING if record is None else record.cell() for record in line]
    if kind == FIDELITY:
        return Column(_distance(known), [_intact_figure(known), *cells[1:]], kind=kind)
    if known.task == RETAINED:
        return Column(f"retained\n{known.metric}", [Cell(), *cells[1:]], kind=kind)
    count = "" if known.documents is None else f"\n{known.documents:,} documents"
    return Column(f"{marked(known)}\n{better(known)}{count}", cells, kind=kind)


def marked(record: Record) -> str:
    """Return the name of a task, with a mark if the intact model hardly does better than knowing nothing."""
    return f"{record.task} {MARK}" if record.at_floor else record.task


def better(record: Record) -> str:
    """Return the name of a metric, with an arrow for the direction in which it gets better."""
    return f"{record.metric} {'↑' if record.higher_is_better else '↓'}"


def fidelity_columns(lines: Sequence[Mapping[tuple[str, str], Record]], *, repeated: bool = False) -> Iterator[Column]:
    """Yield the columns of figures of fidelity and of flips, in which the intact model comes first.

    Args:
        lines: The records of each other model, by task (empty for figures) and metric.
        repeated: Whether ± is the interval over repeats.
    """
    for key in dict.fromkeys(key for line in lines for key in line if key[1] != TO_RIGHT):
        here = [line.get(key) for line in lines]
        first = next(record for record in here if record is not None)
        if first.metric == TO_WRONG:
            cells = [_to_and_fro(line.get(key), line.get((first.task, TO_RIGHT))) for line in lines]
            yield Column(f"{first.task}\nto wrong / back", [Cell(), *cells])
        else:
            cells = [MISSING if record is None else record.cell(repeated=repeated) for record in here]
            yield Column(_distance(first), [_intact_figure(first), *cells])


def _distance(record: Record) -> str:
    """Return the head of a column of fidelity, or of flips, which are those of a task."""
    return f"{record.task}\n{better(record)}".lstrip()


def _intact_figure(record: Record) -> Cell:
    """Show the intact model's own value of a figure of fidelity; empty if it has none."""
    return Cell() if record.original is None else Cell(record.original, record.show(record.original))


def _to_and_fro(to_wrong: Record | None, to_right: Record | None) -> Cell:
    """Show how many answers went from right to wrong, and how many the other way."""
    if to_wrong is None or to_right is None:
        return MISSING
    return Cell(to_wrong.mean, f"{to_wrong.mean:g} / {to_right.mean:g}")


def _gone(size: Record | None) -> Cell:
    """Show how much of a size was removed."""
    if size is None or not size.original:
        return MISSING
    count = size.original - size.mean
    return Cell(count, f"{count:,.0f}", f"({count / size.original:.2%})")


def _cost(cost: Record | None, before: Record | None) -> Cell:
    """Show a cost, and the factor by which it changed, unless the change is within the noise."""
    if cost is None:
        return MISSING
    parts = [] if cost.stderr is None else [f"± {words.amount(cost.stderr)}"]
    if before is not None and before.mean:
        noise = 2 * math.hypot(before.stderr or 0, cost.stderr or 0)
        if abs(cost.mean - before.mean) > noise:
            parts.append(f"(×{cost.mean / before.mean:.2f})")
    return Cell(cost.mean, words.amount(cost.mean), " ".join(parts), cost.stderr)


def targets(model: ModelResults) -> Iterator[Table]:
    """Yield for each target the value that each model reached, and the value with one block less."""
    for quantity, target in model.targets.items():
        here = [removal for removal in pruned(model) if not removal.healer and quantity in removal.models[0].targets]
        reached = [removal.models[0].targets[quantity] for removal in here]
        columns = [
            Column("by", [removal.label for removal in here], "left"),
            Column("reached", [words.amount(value.value) for value in reached]),
            Column("blocks\nremoved", [len(removal.models[0].blocks) for removal in here]),
            Column("with one\nless", [words.amount(value.one_less) for value in reached]),
            Column("intact", [words.amount(target.original) for _ in here]),
        ]
        yield Table(columns, f"target {words.asked(quantity, target)}")


def _outer(model: ModelResults) -> Iterator[Measured]:
    """Yield the intact model's metrics that tables show."""
    yield from (
        metric for task, metrics in model.metrics.items() if task not in model.inner for metric in metrics.values()
    )


def remarks(models: Iterable[ModelResults]) -> Iterator[str]:
    """Yield the lines that explain the mark, and what tables leave out."""
    models = list(models)
    if any(measure.at_floor for model in models for measure in _outer(model)):
        yield AT_FLOOR
    if count := sum(len(model.inner) for model in models):
        yield f"the {count} tasks of groups within a group are in the CSV and in JSON documents alone"


def notes_on(compared: Compared) -> Iterator[str]:
    """Yield the lines that explain tables of quality."""
    if compared.design.repeats > 1:
        yield _REPEATS
    else:
        yield _ONE_REPEAT
        if drawn := dict.fromkeys(label for model in compared.models.values() for label in model.drawn_again):
            yield f"{', '.join(drawn)}: {_REPEATS}"
    rows = [row for _, row in compared.everything]
    headlines = [row for model in compared.models.values() for row in model.headlines]
    if any(row.best for row in rows):
        yield _BEST
    if headlines and all(1 < len(row.best) == len(row.entries) for row in headlines):
        yield "no model is significantly better by what it retains"
    if headlines:
        yield _RETAINED
    yield from remarks(compared.models.values())
    if baselines := [label for label in compared.design.baselines if any(label in row.entries for row in rows)]:
        yield f"baselines: {', '.join(baselines)}; a scorer that does not beat them has shown nothing"
    if compared.design.healers:
        on = " on the text of the repeat" if compared.design.repeats > 1 else ""
        yield f"SCORER+HEALER: the same models, healed{on}"


def scores(model: ModelResults, label: str) -> Table:
    """Return all scores of a scorer by depth, with every column, and with marks for what its plan removes.

    Of several repeats, these are the numbers of the first.
    """
    scored, text = model.scored[label], model.calibration
    where = f" ({text.rows} rows, {text.tokens:,} tokens)" if text else ""
    taken = next((removal.models[0].blocks for removal in model.removals if removal.label == label), None)
    score, *others = (Column(name.replace("_", "\n"), values) for name, values in _numbers(scored).items())
    columns = [Column("block", list(map(str, scored.blocks))), score]
    styles = []
    if taken is not None:
        marks = [words.marked(block, taken) for block in scored.blocks]
        columns.append(Column("removed", marks, "left"))
        styles = ["red" if mark else "" for mark in marks]
    return Table([*columns, *others], f"{label}: importance of {model.num_blocks} blocks{where}", styles=styles)


def _numbers(scored: Scored) -> Mapping[str, Sequence[float]]:
    """Return the numbers to show, by name: the scores, and further columns."""
    scores = scored.scores[0]
    columns = scored.columns or {"score": scores}
    name = next((name for name, values in columns.items() if values == scores), "score")
    return {name: scores, **columns}

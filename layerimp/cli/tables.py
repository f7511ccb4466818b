"""The tables of a run, and of a grid."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table

from layerimp.cli.bars import AXIS, axis
from layerimp.cli.columns import Column, Fits, packed, shown
from layerimp.defaults import ORIGINAL
from layerimp.models.origin import model_name
from layerimp.report import cuts
from layerimp.report import targets as words
from layerimp.report.healing import recovery
from layerimp.report.results.rows import RETAINED
from layerimp.report.tables import REDUCTION, measured, percentage, share_and_error

if TYPE_CHECKING:
    from layerimp.report.document import Results
    from layerimp.report.results.comparison import ModelResults
    from layerimp.report.results.measures import Cost, Measured, Share
    from layerimp.report.results.models import Removal, RepairedGap, Size
    from layerimp.report.results.rows import Entry
    from layerimp.report.tables import PaperTable

BEST = "*"
"""Marks every value that no other beats: the best, and those that do not differ from it significantly."""
AXIS_HEAD = f"0%{'100%':>{AXIS - 2}}"
"""The heading of the axis that shows what is retained."""
BLOCKS_WIDTH = 18
"""The width at which long lists of blocks are broken on a narrow screen."""


def metrics(results: Results, fits: Fits) -> list[Table]:
    """Show the intact and the pruned models side by side, or one model alone, with a row for each metric."""
    model = only(results)
    before = list(_by_key(model.metrics).items())
    columns = [Column(intact_name(results), [measured(metric) for _, metric in before])]
    for removal in pruned(model):
        after = _by_key(removal.models[0].metrics)
        shown_as = [measured(after[key]) if key in after else "-" for key, _ in before]
        entries = [_entry(model, key, removal.label) for key, _ in before]
        kept = [None if entry is None else entry.retained for entry in entries]
        columns.append(Column(removal.label, shown_as))
        columns.append(Column("retained", ["" if share is None else percentage(share.mean) for share in kept]))
    counts = [metric.documents for _, metric in before]
    columns.append(Column("documents", ["-" if count is None else str(count) for count in counts]))
    names = [f"{task} {name} {_better(metric)}" for (task, name), metric in before]
    return packed(f"quality (± standard error{_limit(results)})", Column("metric", names, "left"), columns, fits)


def only(results: Results) -> ModelResults:
    """Return the results for the one model of a run."""
    (model,) = results.models.values()
    return model


def intact_name(results: Results) -> str:
    """Return the name of the intact model: `original` beside pruned models, its own name if it stands alone."""
    model = only(results)
    return ORIGINAL if pruned(model) else model_name(results.design.models[model.label].model)


def pruned(model: ModelResults) -> list[Removal]:
    """Return what was removed from the model of a run, without plans whose removal failed."""
    return [removal for removal in model.removals if removal.models[0].size is not None]


def _by_key(metrics: Mapping[str, Mapping[str, Measured]]) -> dict[tuple[str, str], Measured]:
    return {(task, name): metric for task, named in metrics.items() for name, metric in named.items()}


def _entry(model: ModelResults, key: tuple[str, str], label: str) -> Entry | None:
    """Return the entry of a model in the row of a metric; None if it was not measured."""
    rows = (row for row in model.rows if (row.task, row.metric) == key)
    return next((row.entries[label] for row in rows if label in row.entries), None)


def _better(metric: Measured) -> str:
    """Return an arrow for the direction in which a metric gets better."""
    return "↑" if metric.higher_is_better else "↓"


def _limit(results: Results) -> str:
    return f", first {results.design.limit} documents" if results.design.limit else ""


def footprint(results: Results, fits: Fits) -> list[Table]:
    """Show the costs of the models, and the factors by which they changed."""
    model, columns = only(results), []
    for name, before in model.footprint.items():
        cells = [_quantity(before)]
        for removal in pruned(model):
            after = removal.models[0].footprint.get(name)
            cells.append("-" if after is None else f"{_quantity(after)}{_factor(before, after)}")
        columns.append(Column(name, cells))
    return packed("footprint", _models(results, [removal.label for removal in pruned(model)]), columns, fits)


def _models(results: Results, labels: Sequence[str]) -> Column:
    """Return the first column of a table with a row for each model."""
    return Column("model", [intact_name(results), *labels], "left")


def _factor(before: Cost, after: Cost) -> str:
    """Show the factor by which a cost changed; empty if the change is within the noise."""
    noise = 2 * math.hypot(before.stderr or 0, after.stderr or 0)
    return f" (×{after.value / before.value:.2f})" if before.value and abs(after.value - before.value) > noise else ""


def _quantity(cost: Cost) -> str:
    spread = "" if cost.stderr is None else f" ± {words.amount(cost.stderr)}"
    return words.amount(cost.value) + spread


def removed(results: Results, fits: Fits) -> list[Table]:
    """Show what is removed under each label: the blocks, and their share of blocks, parameters and bytes."""
    model = only(results)
    shown_as = [cuts.ranges(removal.models[0].blocks) for removal in pruned(model)]
    columns = [Column("which", shown_as, "left")]
    for name in ("blocks", "parameters", "bytes"):
        counts = [getattr(_smaller(model, removal), name) for removal in pruned(model)]
        whole = getattr(model.size, name)
        columns.append(Column(name, [f"{count:,} ({count / whole:.2%})" for count in counts]))
    labels = [removal.label for removal in pruned(model)]
    return packed("removed", Column("by", labels, "left"), columns, fits)


def _smaller(model: ModelResults, removal: Removal) -> Size:
    """Return the size of what was removed."""
    whole, rest = model.size, removal.models[0].size
    assert whole is not None
    assert rest is not None
    return whole - rest


def targets(results: Results, fits: Fits) -> Iterator[list[Table]]:
    """Show for each target the value that each model reached, and the values with one step less or more."""
    model = only(results)
    for quantity, target in model.targets.items():
        here = [removal for removal in pruned(model) if not removal.healer and quantity in removal.models[0].targets]
        reached = [removal.models[0].targets[quantity] for removal in here]
        columns = [
            Column("reached", [words.got(value) for value in reached]),
            Column("blocks\nremoved", [str(_smaller(model, removal).blocks) for removal in here]),
            Column("with one\nless", [words.amount(value.one_less) for value in reached]),
            Column("with one\nmore", [words.amount(value.one_more) for value in reached]),
            Column("intact", [words.amount(target.original) for _ in here]),
        ]
        rows = Column("by", [removal.label for removal in here], "left")
        yield packed(f"target {words.asked(quantity, target)}", rows, columns, fits)


def seams(model: ModelResults) -> Iterator[str]:
    """Yield a line for each place where halves of two blocks become one block, each place once."""
    yield from dict.fromkeys(line for removal in pruned(model) for line in cuts.seams(removal.models[0].blocks))


def comparison(results: Results, fits: Fits, *, plain: bool = False) -> list[Table]:
    """Compare the intact and the pruned models, in one table if it fits the screen.

    If it does not fit, errors are put under their values, and if necessary the table is split into parts.

    Args:
        results: The results of the run.
        fits: Whether a table fits the screen.
        plain: Whether the screen shows only ASCII.
    """
    model = only(results)
    removals = _compared(model)
    counts = {len(removal.models[0].blocks) for removal in removals}
    most, whole = max(counts), model.num_blocks
    share = f"{most} of {whole} blocks ({most / whole:.2%}) removed"
    if len(counts) > 1:
        share = f"{min(counts)} to {most} of {whole} blocks removed"
    elif not _whole(removals):
        share = f"{whole - most} of {whole} blocks left"
    if model.search is not None:
        share = "on the confirming documents"
    title = f"comparison, {share} (± standard error{_limit(results)})"
    rows = _models(results, [removal.label for removal in removals])
    table = packed(title, rows, list(_comparison_columns(model, removals, stacked=False, plain=plain)), fits)
    if len(table) == 1:
        return table
    return packed(title, rows, list(_comparison_columns(model, removals, stacked=True, plain=plain)), fits)


def _compared(model: ModelResults) -> list[Removal]:
    """Return the pruned models in their order in the comparison."""
    by_label = {removal.label: removal for removal in pruned(model)}
    return [by_label[label] for label in model.order if label in by_label]


def _whole(removals: Sequence[Removal]) -> bool:
    """Whether only whole blocks were removed."""
    return all(cuts.whole(removal.models[0].blocks) for removal in removals)


def _comparison_columns(
    model: ModelResults, removals: Sequence[Removal], *, stacked: bool, plain: bool
) -> Iterator[Column]:
    """Yield columns for what was removed, for what is retained, and for the metrics that this follows from."""
    plans = [removal.models[0].blocks for removal in removals]
    several = len(set(map(len, plans))) > 1
    blocks = ["", *((f"{len(plan)}: " if several else "") + cuts.ranges(plan) for plan in plans)]
    yield Column(
        "removed\nblocks" if _whole(removals) else "removed", blocks, "left", BLOCKS_WIDTH if stacked else None
    )
    assert model.size is not None
    shares = [_smaller(model, removal).parameters / model.size.parameters for removal in removals]
    yield Column("parameters\nremoved", ["", *(f"{share:.2%}" for share in shares)])
    yield from _retained_columns(model, removals, stacked=stacked, plain=plain)
    for key, metric in _by_key(model.metrics).items():
        cells = [_cell(measured(metric), best=False, stacked=stacked)]
        for removal in removals:
            after, entry = _by_key(removal.models[0].metrics).get(key), _entry(model, key, removal.label)
            text = "-" if after is None else measured(after)
            cells.append(_cell(text, best=entry is not None and entry.best, stacked=stacked))
        count = "" if metric.documents is None else f"\n{metric.documents} documents"
        yield Column(f"{key[0]}\n{key[1]} {_better(metric)}{count}", cells)


def _retained_columns(
    model: ModelResults, removals: Sequence[Removal], *, stacked: bool, plain: bool
) -> Iterator[Column]:
    """Yield columns for what is retained on average, the lower of the two means with an axis."""
    kinds = {
        kind: [None if removal.retained is None else getattr(removal.retained, kind) for removal in removals]
        for kind in ("worst", "likelihood", "accuracy")
    }
    known = [kind for kind, means in kinds.items() if any(means)]
    for kind in known if len(known) == len(kinds) else known[-1:]:
        shares: list[Share | None] = kinds[kind]
        entries = [_entry(model, (RETAINED, kind), removal.label) for removal in removals]
        pairs = zip(shares, entries, strict=True)
        cells = [
            _cell(share_and_error(share), best=entry is not None and entry.best, stacked=stacked)
            for share, entry in pairs
        ]
        yield Column(f"retained\n{kind}", ["", *cells])
        if kind == known[0] or len(known) < len(kinds):
            drawn = ("" if share is None else axis(share.mean, share.stderr or 0, plain=plain) for share in shares)
            yield Column(AXIS_HEAD, ["", *drawn], "left")


def healing(model: ModelResults) -> Iterator[str]:
    """Yield what healers did, with one line for each healed model and one for each of its gaps."""
    for removal in model.removals:
        if (repaired := removal.models[0].healing) is not None:
            yield f"{removal.label}: {recovery(repaired.loss, repaired.accuracy, repaired.recovered)}"
            for gap in repaired.gaps:
                yield f"  {gap_line(gap)}"


def gap_line(gap: RepairedGap) -> str:
    """Show what was done at a gap."""
    numbers = ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in gap.numbers.items())
    return f"{gap.gap}: {gap.done}{numbers and f' ({numbers})'}{gap.why and f'; {gap.why}'}"


def _cell(measured: str, *, best: bool, stacked: bool) -> str:
    """Show a number, its mark, and its error behind or below it. Lines have room for the mark, so that digits align."""
    mark, room = f" {BEST}" if best else "  ", "  "
    value, _, error = measured.partition(" ")
    if stacked and error:
        return f"{value}{mark}\n{error}{room}"
    return f"{measured}{mark}"


def legend(results: Results) -> Iterator[str]:
    """Yield the lines that explain the comparison."""
    model = only(results)
    several = len({tuple(row.counts) for row in model.rows}) > 1
    if any(row.best for row in model.rows):
        among = " with as many blocks removed" if several else ""
        yield f"{BEST} best, or not beaten by any other{among}: compared by document, corrected for the number of pairs"
    if any(1 < len(row.best) == len(row.entries) for row in model.headlines):
        yield "no model is significantly better by what it retains"
    if any(removal.retained and removal.retained.worst for removal in model.removals):
        yield "retained: 100 % is the intact model, 0 % a model that knows nothing; worst: the lower of the two means"
    if baselines := [label for label in model.order if label in results.design.baselines]:
        yield f"baselines: {', '.join(baselines)}; a scorer that does not beat them has shown nothing"


def paper(table: PaperTable, fits: Fits) -> list[Table]:
    """Show a table of a grid, in parts that fit the screen; what no other beats is bold.

    If the removed shares are the same in all rows, they are in the title.
    """
    removed = {row[-1].text for row in table.rows}
    end = len(table.head) - (len(removed) == 1)
    title = f"{table.title} ({removed.pop()})" if len(removed) == 1 else table.title
    return _parts(table, title, len(_PLACE), end, fits)


_PLACE = ("data set", "model", "metric")
"""The columns that describe a row of a grid's table."""


def summary(table: PaperTable, fits: Fits) -> list[Table]:
    """Show what is retained of one model, in parts that fit the screen."""
    return _parts(table, table.title, 1, len(table.head), fits)


def _parts(table: PaperTable, title: str, place: int, end: int, fits: Fits) -> list[Table]:
    """Divide a table into parts that fit the screen, each with the first columns, which describe the row."""
    parts: list[Table] = []
    first = place
    while first < end:
        last = end
        while last > first + 1 and not fits(_part(table, title, first, last, place)):
            last -= 1
        parts.append(_part(table, "" if parts else title, first, last, place))
        first = last
    return parts


def _part(table: PaperTable, title: str, first: int, last: int, place: int) -> Table:
    """Make a part of a table: the first columns, which describe the row, and some of the others."""
    part = Table(title=shown(title) if title else None, box=SIMPLE_HEAD)
    columns = [*range(place), *range(first, last)]
    for index in columns:
        right = index >= place and table.head[index] != REDUCTION
        part.add_column(shown(table.head[index]), justify="right" if right else "left")
    for row in table.rows:
        cells = (row[index] for index in columns)
        part.add_row(*(shown(f"{cell.text} {BEST}", "bold") if cell.best else shown(cell.text) for cell in cells))
    return part

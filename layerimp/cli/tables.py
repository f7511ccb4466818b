"""The tables of a report."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table

from layerimp.cli.bars import AXIS, axis
from layerimp.cli.columns import Column, Fits, packed, shown
from layerimp.defaults import ORIGINAL
from layerimp.report import cuts
from layerimp.report import targets as told
from layerimp.report.healing import recovery
from layerimp.report.model_card import measured
from layerimp.report.tables import REDUCTION, percentage

if TYPE_CHECKING:
    from layerimp.evaluator import Metric
    from layerimp.report.data import Report
    from layerimp.report.statistics.comparison import Comparison
    from layerimp.report.statistics.paired_bootstrap import Estimate
    from layerimp.report.tables import PaperTable
    from layerimp.steps import Step

MARKS = {1: " *", 2: " +", None: ""}
"""The marks in place of bold and underlined, for terminals without these styles."""
BEST = "*"
"""Marks the best value of a column, and every value that does not differ from it significantly."""
AXIS_HEAD = f"0%{'100%':>{AXIS - 2}}"
"""The heading of the axis that shows what is retained."""
BLOCKS_WIDTH = 18
"""The width at which long lists of blocks are broken on a narrow screen."""


def metrics(report: Report, labels: list[str], fits: Fits) -> list[Table]:
    """Show the intact and the pruned models side by side, or one model alone, with a row for each metric."""
    before = report.metrics[ORIGINAL]
    compared = report.comparison()
    columns = [Column(report.intact_name, [measured(metric) for metric in before])]
    for label in labels:
        found = {(m.task, m.name): m for m in report.metrics.get(label, [])}
        after = [found.get((metric.task, metric.name)) for metric in before]
        kept = [compared.retained[label].tasks.get(m.task) if compared.counts(m) else None for m in before]
        columns.append(Column(label, ["-" if metric is None else measured(metric) for metric in after]))
        columns.append(Column("retained", ["" if share is None else percentage(share.mean) for share in kept]))
    columns.append(Column("documents", ["-" if metric.count is None else str(metric.count) for metric in before]))
    names = [f"{metric.task} {metric.name} {_better(metric)}" for metric in before]
    return packed(f"quality (± standard error{_limit(report)})", Column("metric", names, "left"), columns, fits)


def _better(metric: Metric) -> str:
    """Return an arrow for the direction in which a metric gets better."""
    return "↑" if metric.higher_is_better else "↓"


def _limit(report: Report) -> str:
    return f", first {report.recipe.limit} documents" if report.recipe.limit else ""


def footprint(report: Report, labels: list[str], fits: Fits) -> list[Table]:
    """Show the costs of the models, and the factors by which they changed."""
    columns = []
    for before in report.footprint[ORIGINAL]:
        cells = [_quantity(before)]
        for label in labels:
            after = next((m for m in report.footprint.get(label, []) if m.name == before.name), None)
            cells.append("-" if after is None else f"{_quantity(after)}{_factor(before, after)}")
        columns.append(Column(before.name, cells))
    return packed("footprint", _models(report, labels), columns, fits)


def _models(report: Report, labels: Sequence[str]) -> Column:
    """Return the first column of a table with a row for each model."""
    return Column("model", [report.intact_name, *labels], "left")


def _factor(before: Metric, after: Metric) -> str:
    """Show the factor by which a cost changed; empty if the change is within the noise."""
    noise = 2 * math.hypot(before.stderr or 0, after.stderr or 0)
    return f" (×{after.value / before.value:.2f})" if before.value and abs(after.value - before.value) > noise else ""


def _quantity(metric: Metric) -> str:
    spread = "" if metric.stderr is None else f" ± {_amount(metric.stderr)}"
    return _amount(metric.value) + spread


def _amount(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 or float(value).is_integer() else f"{value:.3g}"


def removed(report: Report, labels: list[str], fits: Fits) -> list[Table]:
    """Show what is removed under each label: the blocks, and their share of blocks, parameters and bytes."""
    gone = [report.removed(label) for label in labels]
    columns = [Column("which", [cuts.ranges(report.plan_of(label).blocks) for label in labels], "left")]
    for name in ("blocks", "parameters", "bytes"):
        shares = [one.share_of(report.sizes[ORIGINAL])[name] for one in gone]
        counts = [getattr(one, name) for one in gone]
        columns.append(Column(name, [f"{count:,} ({share:.2%})" for count, share in zip(counts, shares, strict=True)]))
    return packed("removed", Column("by", labels, "left"), columns, fits)


def targets(report: Report, labels: Sequence[str], fits: Fits) -> Iterator[list[Table]]:
    """Show for each target the value that each model reached, and the values with one step less or more."""
    stood = {label: report.standing(label) for label in labels if label not in report.healed}
    for place, first in enumerate(next(iter(stood.values()), ())):
        here = [each[place] for each in stood.values()]
        columns = [
            Column("reached", [told.got(one) for one in here]),
            Column("blocks\nremoved", [str(report.removed(label).blocks) for label in stood]),
            Column("with one\nless", [told.amount(one.less) for one in here]),
            Column("with one\nmore", [told.amount(one.more) for one in here]),
            Column("intact", [told.amount(one.original) for one in here]),
        ]
        yield packed(f"target {told.asked(first)}", Column("by", list(stood), "left"), columns, fits)


def seams(report: Report, labels: Sequence[str]) -> Iterator[str]:
    """Yield a line for each place where halves of two blocks become one block, each place once."""
    yield from dict.fromkeys(line for label in labels for line in cuts.seams(report.plan_of(label).blocks))


def comparison(report: Report, fits: Fits, *, plain: bool = False) -> list[Table]:
    """Compare the intact and the pruned models, in one table if it fits the screen.

    If it does not fit, errors are put under their values, and if necessary the table is split into parts.

    Args:
        report: The report.
        fits: Whether a table fits the screen.
        plain: Whether the screen shows only ASCII.
    """
    found = report.comparison()
    counts = {report.removed(label).blocks for label in found.labels}
    gone = max(counts)
    share = f"{gone} of {report.num_blocks} blocks ({gone / report.num_blocks:.2%}) removed"
    if len(counts) > 1:
        share = f"{min(counts)} to {gone} of {report.num_blocks} blocks removed"
    elif not _whole(report, found.labels):
        share = f"{report.num_blocks - gone} of {report.num_blocks} blocks left"
    if report.search is not None:
        share = "on the confirming documents"
    title, rows = f"comparison, {share} (± standard error{_limit(report)})", _models(report, found.labels)
    whole = packed(title, rows, list(_comparison_columns(report, found, stacked=False, plain=plain)), fits)
    if len(whole) == 1:
        return whole
    return packed(title, rows, list(_comparison_columns(report, found, stacked=True, plain=plain)), fits)


def _whole(report: Report, labels: Sequence[str]) -> bool:
    """Whether only whole blocks were removed."""
    return all(cuts.whole(report.plan_of(label).blocks) for label in labels)


def _comparison_columns(report: Report, found: Comparison, *, stacked: bool, plain: bool) -> Iterator[Column]:
    """Yield columns for what was removed, for what is retained, and for the metrics that this follows from."""
    plans = [report.plan_of(label).blocks for label in found.labels]
    several = len(set(map(len, plans))) > 1
    blocks = ["", *((f"{len(plan)}: " if several else "") + cuts.ranges(plan) for plan in plans)]
    head = "removed\nblocks" if _whole(report, found.labels) else "removed"
    yield Column(head, blocks, "left", BLOCKS_WIDTH if stacked else None)
    gone = [report.removed(label).share_of(report.sizes[ORIGINAL])["parameters"] for label in found.labels]
    yield Column("parameters\nremoved", ["", *(f"{share:.2%}" for share in gone)])
    kinds = {
        "worst": {label: found.retained[label].worst for label in found.labels},
        "likelihood": {label: found.retained[label].likelihood for label in found.labels},
        "accuracy": {label: found.retained[label].accuracy for label in found.labels},
    }
    known = [kind for kind, means in kinds.items() if any(means.values())]
    for kind in known if len(known) == len(kinds) else known[-1:]:
        deciding = kind == "worst" or len(known) < len(kinds)
        cells = [""]
        for label in found.labels:
            best = deciding and label in found.best_retained
            cells.append(_cell(share_and_error(kinds[kind][label]), best=best, stacked=stacked))
        yield Column(f"retained\n{kind}", cells)
        if deciding:
            shares = [kinds[kind][label] for label in found.labels]
            drawn = ("" if one is None else axis(one.mean, one.error or 0, plain=plain) for one in shares)
            yield Column(AXIS_HEAD, ["", *drawn], "left")
    tables = {label: {(m.task, m.name): m for m in metrics} for label, metrics in report.metrics.items()}
    for key, metric in tables[ORIGINAL].items():
        cells = [_cell(measured(metric), best=False, stacked=stacked)]
        for label in found.labels:
            told = "-" if (after := tables[label].get(key)) is None else measured(after)
            cells.append(_cell(told, best=label in found.best[key], stacked=stacked))
        count = "" if metric.count is None else f"\n{metric.count} documents"
        yield Column(f"{key[0]}\n{key[1]} {_better(metric)}{count}", cells)


def healing(report: Report) -> Iterator[str]:
    """Yield what healers did, with one line for each healed model and one for each of its gaps."""
    for label, one in report.healed.items():
        yield f"{label}: {recovery(one.loss, one.accuracy, one.recovered)}"
        for each in one.repairs:
            yield f"  {gap_line(gap=str(each.gap), done=each.done, why=each.why, numbers=each.numbers)}"


def gap_line(*, gap: str, done: str, why: str, numbers: Mapping[str, float], removed: Sequence[Step] = ()) -> str:
    """Show what was done at a gap."""
    told = ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in numbers.items())
    return f"{gap}: {done}{told and f' ({told})'}{why and f'; {why}'}"


def share_and_error(estimate: Estimate | None) -> str:
    """Show a share and its standard error."""
    if estimate is None:
        return "-"
    error = f" ± {estimate.error:.1%}" if estimate.error and round(estimate.error, 3) else ""
    return f"{percentage(estimate.mean)}{error}"


def _cell(measured: str, *, best: bool, stacked: bool) -> str:
    """Show a number, its mark, and its error behind or below it. Lines have room for the mark, so that digits align."""
    mark, room = f" {BEST}" if best else "  ", "  "
    value, _, error = measured.partition(" ")
    if stacked and error:
        return f"{value}{mark}\n{error}{room}"
    return f"{measured}{mark}"


def legend(report: Report) -> Iterator[str]:
    """Yield the lines that explain the comparison."""
    found = report.comparison()
    if found.best_retained or any(found.best.values()):
        yield f"{BEST} best, or not beaten by any other: compared by document, corrected for the number of pairs"
    if 1 < len(found.best_retained) == len(found.labels):
        yield "no model is significantly better by what it retains"
    if any(one.worst for one in found.retained.values()):
        yield "retained: 100 % is the intact model, 0 % a model that knows nothing; worst: the lower of the two means"
    if baselines := [label for label in found.labels if label in report.recipe.baselines]:
        yield f"baselines: {', '.join(baselines)}; a scorer that does not beat them has shown nothing"


def paper(table: PaperTable, fits: Fits) -> list[Table]:
    """Show a table of a grid, in parts that fit the screen; the best is bold, the runner-up underlined.

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
    styles = {1: "bold", 2: "underline", None: ""}
    made = Table(title=shown(title) if title else None, box=SIMPLE_HEAD)
    columns = [*range(place), *range(first, last)]
    for index in columns:
        right = index >= place and table.head[index] != REDUCTION
        made.add_column(shown(table.head[index]), justify="right" if right else "left")
    for row in table.rows:
        cells = (row[index] for index in columns)
        made.add_row(*(shown(cell.text + MARKS[cell.rank], styles[cell.rank]) for cell in cells))
    return made

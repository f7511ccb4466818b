"""A report's tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from layerimp.defaults import ORIGINAL
from layerimp.report import cuts
from layerimp.report.model_card import measured
from layerimp.report.tables import REDUCTION, percentage

if TYPE_CHECKING:
    from layerimp.evaluator import Metric
    from layerimp.report.comparison import Comparison
    from layerimp.report.data import Report
    from layerimp.report.paired_bootstrap import Estimate
    from layerimp.report.tables import PaperTable
    from layerimp.steps import Step

Fits = Callable[[Table], bool]
"""Whether the screen has room for a table."""

MARKS = {1: " *", 2: " +", None: ""}
"""What stands for bold and underlined where a terminal has neither."""
BEST = "*"
"""Marks the best value of a column, and what cannot be told from it."""
BLOCKS_WIDTH = 18
"""Where long lists of blocks are broken on a narrow screen."""


def shown(text: str, style: str = "") -> Text:
    """A name or a sentence from outside, as it is: no markup is read in it, and no control character left in it."""
    return Text("".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text), style=style)


def metrics(report: Report, labels: list[str]) -> Table:
    """The intact model and the pruned ones, if any, side by side."""
    table = Table(title=shown(f"quality (± standard error{_limit(report)})"), box=SIMPLE_HEAD)
    for name in ("task", "metric", "better", "documents", ORIGINAL):
        table.add_column(name, justify="right" if name in ("documents", ORIGINAL) else "left")
    for label in labels:
        table.add_column(shown(label), justify="right")
        table.add_column("retained", justify="right")
    compared = report.comparison()
    found = {label: {(m.task, m.name): m for m in report.metrics.get(label, [])} for label in labels}
    for metric in report.metrics[ORIGINAL]:
        better, count = "higher" if metric.higher_is_better else "lower", "-" if metric.count is None else metric.count
        cells = [metric.task, metric.name, better, str(count), measured(metric)]
        for label in labels:
            after = found[label].get((metric.task, metric.name))
            kept = compared.retained[label].tasks.get(metric.task) if compared.counts(metric) else None
            cells += ["-" if after is None else measured(after), "" if kept is None else percentage(kept.mean)]
        table.add_row(*(shown(cell) for cell in cells))
    return table


def _limit(report: Report) -> str:
    return f", first {report.recipe.limit} documents" if report.recipe.limit else ""


def footprint(report: Report, labels: list[str], fits: Fits) -> list[Table]:
    """What the models cost, and by what factor that changed."""
    columns = []
    for before in report.footprint[ORIGINAL]:
        cells = [_quantity(before)]
        for label in labels:
            after = next((m for m in report.footprint.get(label, []) if m.name == before.name), None)
            cells.append("-" if after is None else f"{_quantity(after)}{_factor(before, after)}")
        columns.append(_Column(before.name, cells))
    return _packed("footprint", [ORIGINAL, *labels], columns, fits)


def _factor(before: Metric, after: Metric) -> str:
    """By what factor a cost changed; nothing where that is within the noise."""
    noise = 2 * math.hypot(before.stderr or 0, after.stderr or 0)
    return f" (×{after.value / before.value:.2f})" if before.value and abs(after.value - before.value) > noise else ""


def _quantity(metric: Metric) -> str:
    spread = "" if metric.stderr is None else f" ± {_amount(metric.stderr)}"
    return _amount(metric.value) + spread


def _amount(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 or float(value).is_integer() else f"{value:.3g}"


def removed(report: Report, labels: list[str]) -> Table:
    """Blocks, parameters and bytes removed, each as a count and a share."""
    table = Table(title="removed", box=SIMPLE_HEAD)
    table.add_column("by")
    for name in ("blocks", "parameters", "bytes"):
        table.add_column(name, justify="right")
    table.add_column("which")
    for label in labels:
        gone = report.removed(label)
        share = gone.share_of(report.sizes[ORIGINAL])
        counts = {"blocks": gone.blocks, "parameters": gone.parameters, "bytes": gone.bytes}
        cells = [f"{count:,} ({share[name]:.2%})" for name, count in counts.items()]
        table.add_row(shown(label), *cells, cuts.ranges(report.plan_of(label).blocks))
    return table


def seams(report: Report, labels: Sequence[str]) -> Iterator[str]:
    """What goes where halves of two blocks become one, each once."""
    yield from dict.fromkeys(line for label in labels for line in cuts.seams(report.plan_of(label).blocks))


@dataclass(frozen=True)
class _Column:
    """A column of a table that has one row per model."""

    name: str
    cells: list[str]
    justify: Literal["left", "right"] = "right"
    max_width: int | None = None


def comparison(report: Report, fits: Fits) -> list[Table]:
    """The intact and the pruned models side by side, as one table where the screen has room for it.

    Where it has not, errors go under their values, and then the columns into several parts.
    """
    found = report.comparison()
    gone = report.removed(found.labels[0]).blocks  # the budget of all
    share = f"{gone} of {report.num_blocks} blocks ({gone / report.num_blocks:.2%}) removed"
    if not _whole(report, found.labels):
        share = f"{report.num_blocks - gone} of {report.num_blocks} blocks left"
    if report.search is not None:
        share = "on the documents that confirm"
    title, rows = f"comparison, {share} (± standard error{_limit(report)})", [ORIGINAL, *found.labels]
    whole = _packed(title, rows, list(_comparison_columns(report, found, stacked=False)), fits)
    if len(whole) == 1:
        return whole
    return _packed(title, rows, list(_comparison_columns(report, found, stacked=True)), fits)


def _whole(report: Report, labels: Sequence[str]) -> bool:
    """Whether nothing but whole blocks went."""
    return all(cuts.whole(report.plan_of(label).blocks) for label in labels)


def _comparison_columns(report: Report, found: Comparison, *, stacked: bool) -> Iterator[_Column]:
    blocks = ["", *(cuts.ranges(report.plan_of(label).blocks) for label in found.labels)]
    head = "removed\nblocks" if _whole(report, found.labels) else "removed"
    yield _Column(head, blocks, "left", BLOCKS_WIDTH if stacked else None)
    tables = {label: {(m.task, m.name): m for m in metrics} for label, metrics in report.metrics.items()}
    for key, metric in tables[ORIGINAL].items():
        cells = [_cell(measured(metric), best=False, stacked=stacked)]
        for label in found.labels:
            told = "-" if (after := tables[label].get(key)) is None else measured(after)
            cells.append(_cell(told, best=label in found.best[key], stacked=stacked))
        count = "" if metric.count is None else f"\n{metric.count} documents"
        yield _Column(f"{key[0]}\n{key[1]} {'↑' if metric.higher_is_better else '↓'}{count}", cells)
    kinds = {
        "likelihood": {label: found.retained[label].likelihood for label in found.labels},
        "accuracy": {label: found.retained[label].accuracy for label in found.labels},
        "worst": {label: found.retained[label].worst for label in found.labels},
    }
    known = [kind for kind, means in kinds.items() if any(means.values())]
    for kind in known if len(known) == 3 else known[:1]:
        last = kind == known[-1] or len(known) < 3
        cells = [""]
        for label in found.labels:
            best = last and label in found.best_retained
            cells.append(_cell(share_and_error(kinds[kind][label]), best=best, stacked=stacked))
        yield _Column(f"retained\n{kind}", cells)
    gone = [report.removed(label).share_of(report.sizes[ORIGINAL])["parameters"] for label in found.labels]
    yield _Column("parameters\nremoved", ["", *(f"{share:.2%}" for share in gone)])


def healing(report: Report) -> Iterator[str]:
    """What healers did, one line for each healed model and one for each of its gaps."""
    for label, one in report.healed.items():
        yield f"{label}: {recovery(one.loss, one.accuracy, one.recovered)}"
        for each in one.repairs:
            yield f"  {gap_line(gap=str(each.gap), done=each.done, why=each.why, numbers=each.numbers)}"


def recovery(loss: Mapping[str, float], accuracy: Mapping[str, float] | None, recovered: float | None) -> str:
    """What healing brought, on text that no choice has seen."""
    lost = "accuracy" if accuracy else "loss"
    if recovered is None:
        back = f"pruning did not {'lower the accuracy' if accuracy else 'raise the loss'}"
    elif recovered < 0:
        back = f"healing lost {-recovered:.0%} more of the {lost}"
    else:
        back = f"{recovered:.0%} of the lost {lost} came back"
    losses = ", ".join(f"{name} {value:.3f}" for name, value in loss.items())
    shares = ", ".join(f"{name} {value:.1%}" for name, value in (accuracy or {}).items())
    return f"{back} on the held-out rows ({shares and f'accuracy: {shares}; '}nats per prediction: {losses})"


def gap_line(*, gap: str, done: str, why: str, numbers: Mapping[str, float], removed: Sequence[Step] = ()) -> str:
    """What was done at a gap."""
    told = ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in numbers.items())
    return f"{gap}: {done}{told and f' ({told})'}{why and f'; {why}'}"


def share_and_error(estimate: Estimate | None) -> str:
    """A share and its standard error."""
    if estimate is None:
        return "-"
    error = f" ± {estimate.error:.1%}" if estimate.error and round(estimate.error, 3) else ""
    return f"{percentage(estimate.mean)}{error}"


def _cell(measured: str, *, best: bool, stacked: bool) -> str:
    """A number, its mark, and its error behind or under it. Each line has room for the mark, to keep digits in line."""
    mark, room = f" {BEST}" if best else "  ", "  "
    value, _, error = measured.partition(" ")
    if stacked and error:
        return f"{value}{mark}\n{error}{room}"
    return f"{measured}{mark}"


def legend(report: Report) -> Iterator[str]:
    """What has to be known to read the comparison."""
    found = report.comparison()
    if found.best_retained or any(found.best.values()):
        yield f"{BEST} the best, and what no other beats: compared by document, corrected for the number of pairs"
    if 1 < len(found.best_retained) == len(found.labels):
        yield "no model is set apart by what it retains"
    if any(one.worst for one in found.retained.values()):
        yield "retained: 100 % is the intact model, 0 % a model that knows nothing; worst: the lower of the two means"
    if baselines := [label for label in found.labels if label in report.recipe.baselines]:
        yield f"baselines: {', '.join(baselines)}; a scorer that is not above them has shown nothing"


def _packed(title: str, rows: list[str], columns: list[_Column], fits: Fits) -> list[Table]:
    """One table, or as many as it takes for each to fit; every one has at least one column, and begins with the rows'
    names."""
    parts: list[list[_Column]] = [[]]
    for column in columns:
        if parts[-1] and not fits(_table(rows, [*parts[-1], column])):
            parts.append([])
        parts[-1].append(column)
    tables = [_table(rows, part) for part in parts]
    tables[0].title = shown(title)
    return tables


def _table(rows: list[str], columns: list[_Column]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), collapse_padding=True)
    table.add_column("model")
    for column in columns:
        table.add_column(shown(column.name), justify=column.justify, max_width=column.max_width)
    for row, name in enumerate(rows):
        table.add_row(shown(name), *(shown(column.cells[row]) for column in columns))
    return table


def paper(table: PaperTable, fits: Fits) -> list[Table]:
    """A table of a grid, in parts that fit; the best is bold, the runner-up underlined.

    What was removed is in the title where all rows say the same.
    """
    removed = {row[-1].text for row in table.rows}
    end = len(table.head) - (len(removed) == 1)
    title = f"{table.title} ({removed.pop()})" if len(removed) == 1 else table.title
    parts: list[Table] = []
    first = len(_PLACE)
    while first < end:
        last = end
        while last > first + 1 and not fits(_part(table, title, first, last)):
            last -= 1
        parts.append(_part(table, "" if parts else title, first, last))
        first = last
    return parts


_PLACE = ("data set", "model", "metric")
"""The columns that say what a row of a grid's table is."""


def summary(table: PaperTable) -> Table:
    """What is retained of one model."""
    return _part(table, table.title, 1, len(table.head), place=1)


def _part(table: PaperTable, title: str, first: int, last: int, place: int = len(_PLACE)) -> Table:
    """Some columns of a table, beside the first ones, which say what a row is."""
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

"""The tables of a comparison, in the layout of the AVSS paper's table 1."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from layerimp.report.results.comparison import Compared, ModelResults
from layerimp.report.results.measures import Interval, Measured, Share
from layerimp.report.results.models import Amount
from layerimp.report.results.rows import Entry, Level, Row
from layerimp.report.statistics.removable import LEVELS

REDUCTION = "parameter reduction"
"""The last column of a grid's table, which holds words rather than numbers."""
_DECIDING = (0.95, 0.9, 0.99)
"""The levels by which scorers are ordered, the most important first."""
_NOT_ZERO = re.compile("[1-9]")
_ALIKE = 0.05
"""If the two sides of an interval differ by less than this, they are shown as one number."""


@dataclass(frozen=True)
class Shown:
    """A table cell.

    Attributes:
        text: The text of the cell.
        best: Whether no other value in the row with as many blocks removed is significantly better.
    """

    text: str
    best: bool = False


@dataclass(frozen=True)
class PaperTable:
    """The models and tasks for one pruner and amount: rows of data sets and models, columns of scorers.

    Attributes:
        title: The pruner and the amount, such as `lowest, 25%`.
        head: The names of the columns.
        rows: The cells.
        place: The number of columns that describe the row.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[Shown]]
    place: int = 3


def paper_tables(compared: Compared) -> list[PaperTable]:
    """Return one table for each pruner and amount."""
    pruners = list(compared.design.pruners)
    rows = sorted(compared.everything, key=lambda pair: (pruners.index(pair[1].pruner), pair[1].removed_blocks))
    labels = list(compared.design.contenders)
    return [
        _table(pruner, amount, [pair for pair in compared.everything if place(pair[1]) == (pruner, amount)], labels)
        for pruner, amount in dict.fromkeys(place(row) for _, row in rows)
    ]


def place(row: Row) -> tuple[str, Amount]:
    """Return the pruner and the amount of a row."""
    return row.pruner, row.amount


def _table(pruner: str, amount: Amount, rows: Sequence[tuple[str, Row]], labels: Sequence[str]) -> PaperTable:
    present = [label for label in labels if any(label in row.entries for _, row in rows)]
    head = ["data set", "model", "metric", "original", *present, REDUCTION]
    lines: dict[tuple[str, str, str], list[Row]] = {}
    for model, row in rows:
        lines.setdefault((row.task, model, row.metric), []).append(row)
    return PaperTable(
        f"{pruner}, {named(amount)}", head, [_row(model, same, present) for (_, model, _), same in lines.items()]
    )


def _row(model: str, rows: Sequence[Row], labels: Sequence[str]) -> list[Shown]:
    """Return the line of one metric: models from which other numbers of blocks were removed stand beside each other."""
    first, entries = rows[0], {label: entry for row in rows for label, entry in row.entries.items()}
    arrow = "↑" if first.higher_is_better else "↓"
    original, count = "", None
    if first.original is not None:
        original, count = with_error(first.original), first.original.documents
    return [
        Shown(first.task if count is None else f"{first.task} (n = {count:,})"),
        Shown(model),
        Shown(f"{first.metric} {arrow}"),
        Shown(original),
        *(_entry(entries.get(label), is_share=first.original is None) for label in labels),
        Shown(reduction(rows)),
    ]


def summaries(compared: Compared) -> list[PaperTable]:
    """Return what is retained by scorer, healer and amount, a table per model and pruner, best contender first."""
    tables = []
    for name, model in compared.models.items():
        for pruner in dict.fromkeys(row.pruner for row in model.headlines):
            here: dict[Amount, list[Row]] = {}
            for row in sorted(model.headlines, key=lambda row: row.removed_blocks):
                if row.pruner == pruner:
                    here.setdefault(row.amount, []).append(row)
            columns = [{label: entry for row in rows for label, entry in row.entries.items()} for rows in here.values()]
            present = [label for label in compared.design.contenders if any(label in column for column in columns)]
            means = {label: [column[label].value.mean for column in columns if label in column] for label in present}
            present.sort(key=lambda label: (-len(means[label]), -sum(means[label])))
            lines = [
                [Shown(each), *(_entry(column.get(each), is_share=True) for column in columns)] for each in present
            ]
            head = ["scorer", *("\n".join(both_shares(*rows)) for rows in here.values())]
            tables.append(
                PaperTable(f"what is retained of {name} ({pruner}), measured on {measured_on(model)}", head, lines)
            )
    return tables


def removables(compared: Compared) -> list[PaperTable]:
    """Return how many blocks may be removed, a table per model and pruner, ordered by the middle level."""
    tables = []
    for label, model in compared.models.items():
        for pruner in dict.fromkeys(pruner for pruner, _ in model.removable):
            here = {each.label: each for (p, _), each in model.removable.items() if p == pruner}
            order = sorted(here, key=lambda each: [-here[each].levels[level].mean.mean for level in _DECIDING])
            lines = [
                [Shown(each), *(Shown(removable_at(here[each].levels[level])) for level in LEVELS)] for each in order
            ]
            counts = sorted({count for each in here.values() for count in each.measured})
            tried = ", ".join(map(str, counts))
            title = f"removable blocks of {label} ({pruner}), of {model.num_blocks}; measured without {tried}"
            tables.append(PaperTable(title, ["scorer", *(f"{level:.0%} retained" for level in LEVELS)], lines, place=1))
    return tables


def removable_at(level: Level) -> str:
    """Show how many blocks may be removed at a level, with the interval over the repeats; a lower bound has none."""
    mean = f"{level.mean.mean:.3g}"
    if level.at_least:
        return f"≥ {mean}"
    low, high = level.mean.low, level.mean.high
    return (
        mean
        if low is None or high is None
        else f"{mean} {to_either_side(level.mean.mean, low, high, '{:.2g}'.format)}".rstrip()
    )


def measured_on(model: ModelResults) -> str:
    """List the tasks of a model, with their numbers of documents."""
    return ", ".join(task if n is None else f"{task} (n = {n:,})" for task, n in model.documents.items())


def _entry(entry: Entry | None, *, is_share: bool) -> Shown:
    if entry is None:
        return Shown("-")
    show = percent if is_share else plus_minus
    value, mean = show(entry.value), entry.value.mean
    error = "" if entry.ends is None else to_either_side(mean, *entry.ends, percentage if is_share else _two_digits)
    return Shown(value + (f" ({error.removeprefix('± ')})" if error else ""), entry.best)


def reduction(rows: Sequence[Row]) -> str:
    """Show the shares of blocks and parameters removed; ranges if scorers remove more or fewer, or other blocks."""
    blocks = [row.removed_blocks for row in rows]
    return f"{between(min(blocks), max(blocks))} of blocks, {_parameters(rows)}"


def _parameters(rows: Sequence[Row]) -> str:
    ends = [end for row in rows for end in row.removed_parameters]
    return f"{between(min(ends), max(ends))} of parameters"


def amounts(compared: Compared) -> list[str]:
    """Show everything that is asked for, each with the share of the parameters of all models that goes by it."""
    texts = []
    for amount in compared.design.amounts:
        rows = [row for _, row in compared.everything if row.amount == amount]
        texts.append(_asked(amount) + (f" ({_parameters(rows)})" if rows else ""))
    return texts


def _asked(amount: Amount) -> str:
    return named(amount) + (" of blocks" if isinstance(amount, float) else "")


def both_shares(*rows: Row) -> tuple[str, str]:
    """Show what is asked for, such as `25% of blocks` or `3 blocks`, and the share of the parameters that goes."""
    return _asked(rows[0].amount), _parameters(rows)


def between(low: float, high: float) -> str:
    """Show a share, or a range of shares if its ends look different."""
    return " to ".join(dict.fromkeys((f"{low:.1%}", f"{high:.1%}")))


def named(amount: Amount) -> str:
    """Show an amount, such as `25%`, `3 blocks` or `bytes=6GB`."""
    if isinstance(amount, str):
        return amount
    if isinstance(amount, int):
        return f"{amount} block" + ("s" if amount > 1 else "")
    return f"{amount * 100:.4g}%"


def to_either_side(value: float, low: float, high: float, show: Callable[[float], str]) -> str:
    """Show how far an interval reaches to either side: `± 3`, or `+40 −30`; empty if it has no visible width."""
    up, down = high - value, value - low
    if abs(up - down) <= _ALIKE * max(up, down):
        both = show((up + down) / 2)
        return f"± {both}" if _NOT_ZERO.search(both) else ""
    sides = f"+{show(up)} −{show(down)}"
    return sides if _NOT_ZERO.search(sides) else ""


def _two_digits(value: float) -> str:
    return number(value, 2)


def percentage(value: float) -> str:
    """Show a share in percent."""
    return "−∞" if value == -math.inf else f"{value:.1%}"


def with_error(metric: Measured) -> str:
    """Show a metric and its standard error."""
    if metric.ends is None or not math.isfinite(metric.value):
        return number(metric.value)
    error = to_either_side(metric.value, *metric.ends, _two_digits).removeprefix("± ")
    return number(metric.value) + (f" ({error})" if error else "")


def measured(metric: Measured) -> str:
    """Show a metric with its standard error, if it has one; that of a perplexity has two sides."""
    if metric.ends is None or not math.isfinite(metric.value):
        return f"{metric.value:.4g}"
    return f"{metric.value:.4g} {to_either_side(metric.value, *metric.ends, '{:.2g}'.format)}".rstrip()


def share_and_error(share: Share | None) -> str:
    """Show what is retained, with its standard error; `-` if it is not known."""
    if share is None:
        return "-"
    error = f" ± {share.stderr:.1%}" if share.stderr and round(share.stderr, 3) else ""
    return f"{percentage(share.mean)}{error}"


def plus_minus(value: Interval) -> str:
    """Show a mean and its interval."""
    return _with_interval(value, number, _two_digits)


def percent(value: Interval) -> str:
    """Show a mean share and its interval."""
    return _with_interval(value, percentage, percentage)


def _with_interval(value: Interval, show: Callable[[float], str], show_error: Callable[[float], str]) -> str:
    if value.low is None or value.high is None or math.isinf(value.high):
        return show(value.mean)
    return f"{show(value.mean)} {to_either_side(value.mean, value.low, value.high, show_error)}".rstrip()


def number(value: float, digits: int = 4) -> str:
    """Show a number with `digits` significant digits."""
    if not math.isfinite(value):
        return "not finite" if math.isnan(value) else "∞" if value > 0 else "-∞"
    if value and not 1e-3 <= abs(value) < 10 ** (digits + 2):
        return f"{value:.{digits - 1}e}"
    return f"{value:#.{digits}g}".rstrip(".") if abs(value) < 10 ** (digits - 1) else f"{value:.0f}"


_LEGEND = (
    "mean ± half of the 95 % confidence interval over the repeats, if they differ (standard error over the "
    "documents); for perplexities the geometric mean",
    "bold: not beaten by any other with as many blocks removed; compared document by document over all pairs, with "
    "Holm's correction, and best if it is the only one",
    "retained: 100 % is the intact model, 0 % a model that knows nothing; worst: the lower of likelihood and accuracy",
)


def legend(compared: Compared) -> Sequence[str]:
    """Return the lines that explain the tables."""
    lines = list(_LEGEND)
    if any(model.removable for model in compared.models.values()):
        lines.append(
            "removable: the largest measured number of blocks such that it and all smaller measured numbers retain the "
            "share, by the worst; mean ± half of its 95 % interval over the repeats; ≥ if in some repeat all measured "
            "numbers do"
        )
    if compared.design.healers:
        lines.append("SCORER+HEALER: the same models, healed on the text of the repeat")
    return lines

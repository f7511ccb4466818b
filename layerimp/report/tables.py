"""The tables of a comparison, in the layout of the AVSS paper's table 1."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from layerimp.evaluator import Metric
from layerimp.report.findings import Compared, Entry, ModelFindings, Row
from layerimp.report.statistics.intervals import Interval
from layerimp.report.statistics.removable import LEVELS, Level

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
        rank: 1 for the best, 2 for the runner-up, if the difference to those behind is significant; else None.
    """

    text: str
    rank: int | None = None


@dataclass(frozen=True)
class PaperTable:
    """The models and tasks at one pruner and ratio: rows of data sets and models, columns of scorers.

    Attributes:
        title: The pruner and the ratio, such as `lowest, 25%`.
        head: The names of the columns.
        rows: The cells.
        place: The number of columns that describe the row.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[Shown]]
    place: int = 3


def paper_tables(found: Compared) -> list[PaperTable]:
    """Return one table for each pruner and ratio."""
    rows = [row for model in found.models.values() for row in model.rows]
    pruners = list(found.design.pruners)
    places = {
        (row.pruner, row.ratio): None for row in sorted(rows, key=lambda r: (pruners.index(r.pruner), r.removed_blocks))
    }
    labels = list(found.design.contenders)
    return [
        _table(pruner, ratio, [r for r in rows if (r.pruner, r.ratio) == (pruner, ratio)], labels)
        for pruner, ratio in places
    ]


def _table(pruner: str, ratio: float, rows: Sequence[Row], labels: Sequence[str]) -> PaperTable:
    present = [label for label in labels if any(label in row.entries for row in rows)]
    head = ["data set", "model", "metric", "original", *present, REDUCTION]
    return PaperTable(f"{pruner}, {named(ratio)}", head, [_row(row, present) for row in rows])


def _row(row: Row, labels: Sequence[str]) -> list[Shown]:
    arrow = "↑" if row.higher_is_better else "↓"
    original, count = "", None
    if row.original is not None:
        original, count = with_error(row.original), row.original.count
    return [
        Shown(row.task if count is None else f"{row.task} (n = {count:,})"),
        Shown(row.model),
        Shown(f"{row.metric} {arrow}"),
        Shown(original),
        *(_entry(row.entries.get(label), is_share=row.original is None) for label in labels),
        Shown(reduction(row)),
    ]


def summaries(found: Compared) -> list[PaperTable]:
    """Return what is retained by scorer, healer and ratio, a table per model and pruner, best contender first."""
    tables = []
    for label, model in found.models.items():
        rows = model.headlines
        for pruner in dict.fromkeys(row.pruner for row in rows):
            here = sorted((row for row in rows if row.pruner == pruner), key=lambda row: row.removed_blocks)
            labels = [one for one in found.design.contenders if any(one in row.entries for row in here)]
            means = {one: [row.entries[one].value.mean for row in here if one in row.entries] for one in labels}
            labels.sort(key=lambda one: (-len(means[one]), -sum(means[one])))
            lines = [[Shown(one), *(_entry(row.entries.get(one), is_share=True) for row in here)] for one in labels]
            head = ["scorer", *("\n".join(both_shares(row)) for row in here)]
            tables.append(
                PaperTable(f"what is retained of {label} ({pruner}), measured on {measured_on(model)}", head, lines)
            )
    return tables


def removables(found: Compared) -> list[PaperTable]:
    """Return how many blocks may be removed, a table per model and pruner, ordered by the middle level."""
    tables = []
    for label, model in found.models.items():
        for pruner in dict.fromkeys(pruner for pruner, _ in model.removable):
            here = {one: each for (p, one), each in model.removable.items() if p == pruner}
            order = sorted(here, key=lambda one: [-here[one].levels[level].mean.mean for level in _DECIDING])
            lines = [[Shown(one), *(Shown(removable_at(here[one].levels[level])) for level in LEVELS)] for one in order]
            counts = sorted({count for one in here.values() for count in one.measured})
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
        else f"{mean} {around(level.mean.mean, low, high, '{:.2g}'.format)}".rstrip()
    )


def measured_on(model: ModelFindings) -> str:
    """List the tasks of a model, with their numbers of documents."""
    return ", ".join(task if n is None else f"{task} (n = {n:,})" for task, n in model.documents.items())


def _entry(entry: Entry | None, *, is_share: bool) -> Shown:
    if entry is None:
        return Shown("-")
    said = percent if is_share else plus_minus
    value, mean = said(entry.value), entry.value.mean
    error = "" if entry.ends is None else around(mean, *entry.ends, percentage if is_share else _two_digits)
    return Shown(value + (f" ({error.removeprefix('± ')})" if error else ""), entry.rank)


def reduction(row: Row) -> str:
    """Show the shares of blocks and parameters removed; a range if scorers remove blocks of different sizes."""
    return f"{row.removed_blocks:.1%} of blocks, {between(*row.removed_parameters)} of parameters"


def amounts(found: Compared) -> list[str]:
    """Show everything that is asked for, each with the share of the parameters of all models that goes by it."""
    texts = []
    for ratio in found.design.ratios:
        ends = [
            end
            for model in found.models.values()
            for row in model.rows
            if row.ratio == ratio
            for end in row.removed_parameters
        ]
        texts.append(_asked(ratio) + (f" ({between(min(ends), max(ends))} of parameters)" if ends else ""))
    return texts


def _asked(ratio: float) -> str:
    return named(ratio) + ("" if isinstance(ratio, int) else " of blocks")


def both_shares(row: Row) -> tuple[str, str]:
    """Show what is asked for, such as `25% of blocks` or `3 blocks`, and the share of the parameters that goes."""
    return _asked(row.ratio), f"{between(*row.removed_parameters)} of parameters"


def between(low: float, high: float) -> str:
    """Show a share, or a range of shares if its ends look different."""
    return " to ".join(dict.fromkeys((f"{low:.1%}", f"{high:.1%}")))


def named(ratio: float) -> str:
    """Show a ratio, such as `25%` or `3 blocks`."""
    if isinstance(ratio, int):
        return f"{ratio} block" + ("s" if ratio > 1 else "")
    return f"{ratio * 100:.4g}%"


def around(value: float, low: float, high: float, said: Callable[[float], str]) -> str:
    """Show how far an interval reaches to either side: `± 3`, or `+40 −30`; empty if it has no visible width."""
    up, down = high - value, value - low
    if abs(up - down) <= _ALIKE * max(up, down):
        both = said((up + down) / 2)
        return f"± {both}" if _NOT_ZERO.search(both) else ""
    sides = f"+{said(up)} −{said(down)}"
    return sides if _NOT_ZERO.search(sides) else ""


def _two_digits(value: float) -> str:
    return number(value, 2)


def percentage(value: float) -> str:
    """Show a share in percent."""
    return "−∞" if value == -math.inf else f"{value:.1%}"


def with_error(metric: Metric) -> str:
    """Show a metric and its standard error."""
    ends = metric.ends(1.0)
    if ends is None or not math.isfinite(metric.value):
        return number(metric.value)
    error = around(metric.value, *ends, _two_digits).removeprefix("± ")
    return number(metric.value) + (f" ({error})" if error else "")


def plus_minus(value: Interval) -> str:
    """Show a mean and its interval."""
    return _with_interval(value, number, _two_digits)


def percent(value: Interval) -> str:
    """Show a mean share and its interval."""
    return _with_interval(value, percentage, percentage)


def _with_interval(value: Interval, said: Callable[[float], str], error_said: Callable[[float], str]) -> str:
    if value.low is None or value.high is None or math.isinf(value.high):
        return said(value.mean)
    return f"{said(value.mean)} {around(value.mean, value.low, value.high, error_said)}".rstrip()


def number(value: float, digits: int = 4) -> str:
    """Show a number with `digits` significant digits."""
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if value and not 1e-3 <= abs(value) < 10 ** (digits + 2):
        return f"{value:.{digits - 1}e}"
    return f"{value:#.{digits}g}".rstrip(".") if abs(value) < 10 ** (digits - 1) else f"{value:.0f}"


_LEGEND = (
    "mean ± half of the 95 % confidence interval over the repeats, if they differ (standard error over the "
    "documents); for perplexities the geometric mean",
    "best (bold) and runner-up (underlined) are marked only where they are significantly better than all behind them: "
    "compared document by document, with Holm's correction",
    "retained: 100 % is the intact model, 0 % a model that knows nothing; worst: the lower of likelihood and accuracy",
)


def legend(found: Compared) -> Sequence[str]:
    """Return the lines that explain the tables."""
    lines = list(_LEGEND)
    if any(model.removable for model in found.models.values()):
        lines.append(
            "removable: the largest measured number of blocks such that it and all smaller measured numbers retain the "
            "share, by the worst; mean ± half of its 95 % interval over the repeats; ≥ if in some repeat all measured "
            "numbers do"
        )
    if found.design.healers:
        lines.append("SCORER+HEALER: the same models, healed on the text of the repeat")
    return lines

"""How tables, pages and cards show numbers: metrics with errors, shares, amounts, and what is removed."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable

from layerimp._table import Cell
from layerimp.report.results.comparison import Compared, ModelResults
from layerimp.report.results.measures import Interval, Measured, Share
from layerimp.report.results.models import Amount
from layerimp.report.results.rows import Level, Row

_NOT_ZERO = re.compile("[1-9]")
_ALIKE = 0.05
"""If the two sides of an interval differ by less than this, they are shown as one number."""
Show = Callable[[float], str]
Ends = tuple[float | None, float | None] | None
"""The ends of an interval, as far as they are known."""


def number(value: float, digits: int = 4) -> str:
    """Show a number with `digits` significant digits."""
    if not math.isfinite(value):
        return "not finite" if math.isnan(value) else "∞" if value > 0 else "-∞"
    if value and not 1e-4 <= abs(value) < 10 ** (digits + 2):
        return f"{value:.{digits - 1}e}"
    return f"{value:#.{digits}g}".rstrip(".") if abs(value) < 10 ** (digits - 1) else f"{value:.0f}"


def two_digits(value: float) -> str:
    """Show an error, with two significant digits."""
    return number(value, 2)


def percentage(value: float) -> str:
    """Show a share in percent."""
    return "−∞" if value == -math.inf else f"{value:.1%}"


def to_either_side(value: float, ends: Ends, show: Show) -> str:
    """Show how far an interval reaches to either side: `± 3`, or `+40 −30`.

    Empty if an end is not known or infinite, or if the interval has no visible width.
    """
    low, high = ends or (None, None)
    if low is None or high is None or not all(map(math.isfinite, (value, low, high))):
        return ""
    up, down = high - value, value - low
    if abs(up - down) <= _ALIKE * max(up, down):
        both = show((up + down) / 2)
        return f"± {both}" if _NOT_ZERO.search(both) else ""
    sides = f"+{show(up)} −{show(down)}"
    return sides if _NOT_ZERO.search(sides) else ""


def share_cell(share: Share | None) -> Cell:
    """Show what is retained, with its standard error over the documents."""
    if share is None:
        return Cell(text="-")
    ends = None if share.stderr is None else (share.mean - share.stderr, share.mean + share.stderr)
    return Cell(share.mean, percentage(share.mean), to_either_side(share.mean, ends, percentage), share.stderr)


def measured(metric: Measured) -> str:
    """Show a metric with its standard error, if it has one; that of a perplexity has two sides."""
    return f"{number(metric.value)} {to_either_side(metric.value, metric.ends, two_digits)}".rstrip()


def plus_minus(value: Interval) -> str:
    """Show a mean and its interval."""
    return f"{number(value.mean)} {to_either_side(value.mean, (value.low, value.high), two_digits)}".rstrip()


def percent(value: Interval) -> str:
    """Show a mean share and its interval."""
    return f"{percentage(value.mean)} {to_either_side(value.mean, (value.low, value.high), percentage)}".rstrip()


def removable_at(level: Level) -> str:
    """Show how many blocks may be removed at a level, with the interval over the repeats; a lower bound has none."""
    mean = level.mean.mean
    if level.at_least:
        return f"≥ {mean:.3g}"
    return f"{mean:.3g} {to_either_side(mean, (level.mean.low, level.mean.high), '{:.2g}'.format)}".rstrip()


def named(amount: Amount) -> str:
    """Show an amount, such as `25%`, `3 blocks` or `bytes=6GB`."""
    if isinstance(amount, str):
        return amount
    if isinstance(amount, int):
        return f"{amount} block" + ("s" if amount > 1 else "")
    return f"{amount * 100:.4g}%"


def asked(amount: Amount) -> str:
    """Show an amount as a part of the model, such as `25% of blocks`."""
    return named(amount) + (" of blocks" if isinstance(amount, float) else "")


def between(low: float, high: float) -> str:
    """Show a share, or a range of shares if its ends look different."""
    return " to ".join(dict.fromkeys((f"{low:.1%}", f"{high:.1%}")))


def parameters(ends: Iterable[float]) -> str:
    """Show the share of the parameters that is removed, or the range of shares."""
    shares = list(ends)
    return f"{between(min(shares), max(shares))} of parameters"


def both_shares(*rows: Row) -> tuple[str, str]:
    """Show what is asked for, such as `25% of blocks` or `3 blocks`, and the share of the parameters that goes."""
    return asked(rows[0].amount), parameters(end for row in rows for end in row.removed_parameters)


def amounts(compared: Compared) -> list[str]:
    """Show everything that is asked for, each with the share of the parameters of all models that goes by it."""
    texts = []
    for amount in compared.design.amounts:
        ends = [end for _, row in compared.everything if row.amount == amount for end in row.removed_parameters]
        texts.append(asked(amount) + (f" ({parameters(ends)})" if ends else ""))
    return texts


def measured_on(model: ModelResults) -> str:
    """List the tasks of a model, with their numbers of documents."""
    return ", ".join(task if n is None else f"{task} (n = {n:,})" for task, n in model.documents.items())

"""How the report says numbers and names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from layerimp.report.tables import PaperTable, named

MINUS = "\N{MINUS SIGN}"


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def count(value: int) -> str:
    """A count, its digits in groups that no line break parts."""
    return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def listed(names: Iterable[str]) -> str:
    """Names in a sentence."""
    *first, last = list(names) or ["none"]
    return f"{', '.join(first)} and {last}" if first else last


def unbroken(ratio: float) -> str:
    """A ratio as people say it, on one line."""
    return named(ratio).replace(" ", "\N{NO-BREAK SPACE}")


def signed(value: float, how: str) -> str:
    """A number whose minus sign is as wide as its plus sign."""
    return f"{value:{how}}".replace("-", MINUS)


STEPS = range(24, 121, 4)
"""Widths in rem below which some tables become lists."""


def listing(needed: float) -> str:
    """The class of a table that becomes a list where it has less room than that, in rem."""
    return f"list-{next((step for step in STEPS if step >= needed), 'always')}"


def columns_need(table: PaperTable) -> float:
    """How much room a table's columns take when all that may break into lines does, in rem."""
    columns = zip(table.head, *([cell.text for cell in row] for row in table.rows), strict=True)
    return sum(_needs(texts) for place, texts in enumerate(columns) if place != 1)  # the metric stands under the task


def _needs(texts: Sequence[str]) -> float:
    """The room of the longest piece, and of what stands beside it; names can be broken anywhere."""
    head, *cells = texts
    pieces = [piece for text in cells for piece in together(text).split(" ")]
    return 1.5 + 0.5 * max([min(len(head), 9), *map(len, pieces)])


def together(text: str) -> str:
    """A number with its error, which no line break parts from its sign."""
    return re.sub("(?<=[±≥]) ", "\N{NO-BREAK SPACE}", text)

"""Tables that are split between columns if the screen is too narrow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from layerimp.cli.streams import results

_SPELT = {
    "↑": "^",
    "↓": "v",
    "±": "+-",
    "−": "-",
    "≥": ">=",
    "≤": "<=",
    "×": "x",
    "∞": "inf",
    "–": "-",
    "…": "...",
    "→": "->",
}
Fits = Callable[[Table], bool]
"""Tells whether a table fits the screen."""


def shown(text: str, style: str = "") -> Text:
    """Return text from outside as it is shown: without reading markup in it, and without control characters.

    Signs that the encoding of stdout lacks are spelt in ASCII here, before the layout, so that columns stay aligned.
    """
    printed = "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)
    return Text(_as_stdout_can(printed), style=style)


def _as_stdout_can(text: str) -> str:
    """Spell in ASCII the signs that the encoding of stdout lacks."""
    encoding = getattr(results(), "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return "".join(_SPELT.get(c, c) if not _has(encoding, c) else c for c in text)
    return text


def _has(encoding: str, character: str) -> bool:
    try:
        return bool(character.encode(encoding))
    except UnicodeEncodeError:
        return False


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: The heading.
        cells: One cell for each row.
        justify: The side on which the cells are aligned.
        max_width: The width at which cells are broken at words.
    """

    name: str
    cells: Sequence[str]
    justify: Literal["left", "right"] = "right"
    max_width: int | None = None


def packed(
    title: str, rows: Column, columns: Sequence[Column], fits: Fits, *, styles: Sequence[str] | None = None
) -> list[Table]:
    """Make one table, or as many tables as are needed for each to fit the screen.

    Args:
        title: The title above the first table.
        rows: The column that names the rows; every table begins with it.
        columns: The other columns, the most important first. Every table has at least one of them.
        fits: Whether a table fits the screen.
        styles: The style of each row.
    """
    parts: list[list[Column]] = [[]]
    for column in columns:
        if parts[-1] and not fits(_table(rows, [*parts[-1], column], styles)):
            parts.append([])
        parts[-1].append(column)
    if len(parts) > 1:  # a single column would look lost
        *_, before, last = parts
        while len(before) > len(last) + 1 and fits(_table(rows, [before[-1], *last], styles)):
            last.insert(0, before.pop())
    tables = [_table(rows, part, styles) for part in parts]
    tables[0].title = shown(title)
    return tables


def _table(rows: Column, columns: Sequence[Column], styles: Sequence[str] | None) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), collapse_padding=True)
    for column in (rows, *columns):
        table.add_column(shown(column.name), justify=column.justify, max_width=column.max_width)
    for row, name in enumerate(rows.cells):
        cells = (shown(column.cells[row]) for column in columns)
        table.add_row(shown(name), *cells, style=styles[row] if styles else "")
    return table

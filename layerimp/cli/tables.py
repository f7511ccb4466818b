"""Tables in a terminal: divided between columns where it is too narrow, with names as plain text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.table import Table as RichTable
from rich.text import Text

from layerimp._table import Cell, Column, Table

BEST = "*"
"""Marks what no other beats."""
Fits = Callable[[RichTable], bool]
"""Tells whether a table fits the screen."""


def shown(text: str, style: str = "") -> Text:
    """Return text from outside as it is shown: without reading markup in it, and without control characters."""
    return Text("".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text), style=style)


@dataclass(frozen=True)
class _Texts:
    """A column as it is shown: its heading, its cells, their side, and the width at which they are broken."""

    name: Text
    cells: list[Text]
    side: Literal["left", "right"]
    width: int | None = None


def parts(table: Table, fits: Fits) -> list[RichTable]:
    """Return a table as it is shown, without its title: whole if it fits the screen, else in parts that fit.

    If it does not fit, errors are put under their values, long texts are broken, and if necessary the table is divided
    between columns. Every part begins with the columns that name the rows.

    Args:
        table: The table.
        fits: Whether a table fits the screen.
    """
    whole = _parts(table, fits, narrow=False)
    return whole if len(whole) == 1 else _parts(table, fits, narrow=True)


def _parts(table: Table, fits: Fits, *, narrow: bool) -> list[RichTable]:
    columns = [_texts(column, narrow) for column in table.columns]
    naming = columns[: table.naming]
    divided: list[list[_Texts]] = [[]]
    for texts in columns[table.naming :]:
        if divided[-1] and not fits(_rich([*naming, *divided[-1], texts], table.styles)):
            divided.append([])
        divided[-1].append(texts)
    if len(divided) > 1:  # a single column would look lost
        *_, before, last = divided
        while len(before) > len(last) + 1 and fits(_rich([*naming, before[-1], *last], table.styles)):
            last.insert(0, before.pop())
    return [_rich([*naming, *part], table.styles) for part in divided]


def _texts(column: Column, narrow: bool) -> _Texts:
    """Return a column as it is shown."""
    room = any(cell.best for cell in column.cells)
    cells = [_text(cell, room=room, narrow=narrow) for cell in column.cells]
    return _Texts(shown(column.name), cells, column.side, column.width if narrow else None)


def _text(cell: Cell, *, room: bool, narrow: bool) -> Text:
    """Show a cell with its mark. If other cells of the column have marks, there is room for one, so that digits align.

    Args:
        cell: The cell.
        room: Whether the column has marks.
        narrow: Whether the error is put under the value.
    """
    style, mark = ("bold", f" {BEST}") if cell.best else ("", "  " if room else "")
    if narrow and cell.error:
        space = "  " if room else ""
        return shown("\n".join([f"{cell.main}{mark}", *(f"{error}{space}" for error in _errors(cell))]), style)
    return shown(f"{cell}{mark}", style)


def _errors(cell: Cell) -> list[str]:
    """Return the error of a cell in short lines: what is in brackets has its own."""
    before, bracket, inside = cell.error.partition("(")
    return list(filter(None, (before.rstrip(), bracket + inside)))


def _rich(columns: Sequence[_Texts], styles: Sequence[str]) -> RichTable:
    table = RichTable(box=SIMPLE_HEAD, padding=(0, 1), collapse_padding=True)
    for column in columns:
        table.add_column(column.name, justify=column.side, max_width=column.width)
    for row, cells in enumerate(zip(*(column.cells for column in columns), strict=True)):
        table.add_row(*cells, style=styles[row] if styles else "")
    return table

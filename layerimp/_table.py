"""Tables: what they hold, and how they are shown in notebooks, Markdown and LaTeX and converted to pandas."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from pandas import DataFrame
    from pandas.io.formats.style import Styler


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        value: A text, a number, or None if there is none.
        text: How the value is shown; if empty, as it is: numbers with four digits, and whole numbers with all of them.
        error: How the error of the value is shown, such as `± 0.3`; empty if it has none.
        stderr: The standard error of the value; None if it is not known.
        best: Whether no other value is significantly better.
    """

    value: Any = None
    text: str = ""
    error: str = ""
    stderr: float | None = None
    best: bool = False

    @property
    def main(self) -> str:
        """The value as it is shown, without its error."""
        if self.text or self.value is None:
            return self.text
        if isinstance(self.value, float):
            return f"{self.value:.4g}"
        return f"{self.value:,}" if type(self.value) is int else str(self.value)

    def __str__(self) -> str:
        return f"{self.main} {self.error}".rstrip()


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: Its head, which may have several lines.
        values: Its cells. What is no `Cell` is the value of one.
        side: The side on which the cells are aligned.
        width: The width at which a terminal that lacks room breaks cells at words; None for no limit.
        kind: What the column is about, so that a part of a table can be shown alone.
    """

    name: str
    values: Sequence[Any]
    side: Literal["left", "right"] = "right"
    width: int | None = None
    kind: str = ""

    @cached_property
    def cells(self) -> list[Cell]:
        """The cells."""
        return [value if isinstance(value, Cell) else Cell(value) for value in self.values]

    @property
    def head(self) -> str:
        """The name in one line."""
        return self.name.replace("\n", " ")


@dataclass(frozen=True)
class Table:
    """A table: columns of equal length.

    Attributes:
        columns: The columns.
        title: The title; may be empty.
        naming: How many columns name the rows. They come first, and every part of a divided table begins with them.
        notes: The lines that explain the table.
        styles: The style of each row in a terminal; empty for none.
    """

    columns: Sequence[Column]
    title: str = ""
    naming: int = 1
    notes: Sequence[str] = ()
    styles: Sequence[str] = ()

    @property
    def heads(self) -> list[str]:
        """The names of the columns, each in one line."""
        return [column.head for column in self.columns]

    @property
    def rows(self) -> list[tuple[Cell, ...]]:
        """The cells, by row."""
        return list(zip(*(column.cells for column in self.columns), strict=True))

    def of(self, *kinds: str, title: str) -> Table:
        """Return the columns of some kinds as a table of its own, with the rows that hold anything, without notes."""
        columns = [column for place, column in enumerate(self.columns) if place < self.naming or column.kind in kinds]
        rows = replace(self, columns=columns).rows
        kept = [place for place, row in enumerate(rows) if any(map(str, row[self.naming :]))]
        columns = [replace(column, values=[column.values[place] for place in kept]) for column in columns]
        styles = [self.styles[place] for place in kept] if self.styles else ()
        return replace(self, columns=columns, title=title, notes=(), styles=styles)

    def without(self, *kinds: str) -> Table:
        """Return the table without the columns of some kinds."""
        return replace(self, columns=[column for column in self.columns if column.kind not in kinds])

    def frame(self) -> DataFrame:
        """Return the values as a DataFrame."""
        from pandas import DataFrame

        return DataFrame({column.name: [cell.value for cell in column.cells] for column in self.columns})

    def html(self) -> str:
        """Return the table as HTML for a notebook."""
        style = self._filled(escape, "<b>{}</b>".format)
        sides = [(f".col{place}", f"text-align: {column.side}") for place, column in enumerate(self.columns)]
        if self.title:
            style = style.set_caption(escape(self.title))
            sides.append(("caption", "caption-side: top; text-align: left"))
        style = style.set_table_styles([{"selector": where, "props": props} for where, props in sides])
        return style.to_html()

    def latex(self) -> str:
        """Return the table in LaTeX, for a document that uses `booktabs`."""
        style = self._filled(escaped_for_latex, r"\textbf{{{}}}".format)
        sides = "".join(column.side[0] for column in self.columns)
        caption = escaped_for_latex(self.title) or None
        return style.to_latex(column_format=sides, caption=caption, hrules=True, position_float="centering")

    def markdown(self) -> str:
        """Return the table in Markdown, with its title as a heading."""
        lines = [self.heads, ["---:" if column.side == "right" else "---" for column in self.columns]]
        lines += [[f"**{cell}**" if cell.best else str(cell) for cell in row] for row in self.rows]
        piped = (" | ".join(text.replace("|", "\\|") for text in line) for line in lines)
        return f"## {self.title}\n\n" + "".join(f"| {line} |\n" for line in piped)

    def _filled(self, escaped: Callable[[str], str], marked: Callable[[str], str]) -> Styler:
        """Return the table as pandas styles it, with escaped texts, and marks on what is best."""
        from pandas import DataFrame
        from pandas.io.formats.style import Styler

        texts = [[marked(escaped(str(cell))) if cell.best else escaped(str(cell)) for cell in row] for row in self.rows]
        name = f"{zlib.crc32(repr(self.heads).encode()):08x}"  # of the HTML: the same for the same columns
        frame = DataFrame(texts, columns=range(len(self.columns)))
        style = Styler(frame, uuid=name, cell_ids=False).hide(axis="index")
        return style.relabel_index([escaped(head) for head in self.heads], axis="columns")


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    **{sign: f"${sign}$" for sign in "<>|"},
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "∞": r"$\infty$",
    "≥": r"$\geq$",
    "−": r"$-$",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def escaped_for_latex(text: str) -> str:
    """Return a text as LaTeX shows it."""
    return re.sub("|".join(map(re.escape, _LATEX)), lambda match: _LATEX[match[0]], text)


class Tabular:
    """Base of results with one table, which notebooks show and `to_pandas` converts."""

    def _table(self) -> Table:
        raise NotImplementedError

    def _repr_html_(self) -> str:
        return self._table().html()

    def to_pandas(self) -> DataFrame:
        """Return the table as a pandas DataFrame."""
        return self._table().frame()

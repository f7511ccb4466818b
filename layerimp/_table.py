"""Results as tables: in a notebook as HTML, and in pandas as a DataFrame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from layerimp.errors import InputError

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: Its head.
        values: Its cells: texts, numbers, or None where there is none.
        errors: The standard errors of the values; empty where nothing has one. HTML leaves out those that are zero.
        form: How HTML shows numbers that are not whole, as `format` takes it.
        tags: HTML elements around the cells, such as `b`, or empty texts; empty where nothing is set apart.
    """

    name: str
    values: Sequence[Any]
    errors: Sequence[float | None] = ()
    form: str = ".4g"
    tags: Sequence[str] = ()

    def html(self) -> Iterator[str]:
        """Yield the cells as escaped HTML."""
        for row, value in enumerate(self.values):
            text = self._text(value)
            if self.errors and (error := self.errors[row]):
                text += f" ± {error:.2g}"
            tag = self.tags[row] if self.tags else ""
            side = "left" if isinstance(value, str) and not self.tags else "right"
            inner = f"<{tag}>{escape(text)}</{tag}>" if tag else escape(text)
            yield f'<td style="text-align: {side}">{inner}</td>'

    def _text(self, value: Any) -> str:
        if isinstance(value, float):
            return format(value, self.form)
        return "" if value is None else format(value, ",") if type(value) is int else str(value)


@dataclass(frozen=True)
class Table:
    """A table: columns of equal length.

    Attributes:
        columns: The columns.
        title: The title; may be empty.
    """

    columns: Sequence[Column]
    title: str = ""

    def html(self) -> str:
        """Return the table as HTML."""
        caption = f'<caption style="caption-side: top; text-align: left">{escape(self.title)}</caption>\n'
        head = "".join(f"<th>{escape(column.name)}</th>" for column in self.columns)
        rows = zip(*(column.html() for column in self.columns), strict=True)
        body = "\n".join(f"<tr>{''.join(cells)}</tr>" for cells in rows)
        parts = f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>"
        return f"<table>\n{caption if self.title else ''}{parts}\n</table>"

    def frame(self) -> DataFrame:
        """Return the table as a DataFrame; errors become further columns, `NAME stderr`.

        Raises:
            InputError: pandas is not installed.
        """
        try:
            from pandas import DataFrame
        except ImportError:
            raise InputError("to_pandas() needs pandas, which is not installed: pip install pandas") from None
        cells: dict[str, Sequence[Any]] = {}
        for column in self.columns:
            cells[column.name] = column.values
            if column.errors:
                cells[f"{column.name} stderr"] = column.errors
        return DataFrame(cells)


class Tabular:
    """Base of results with one table, which notebooks show and `to_pandas` converts."""

    def _table(self) -> Table:
        raise NotImplementedError

    def _repr_html_(self) -> str:
        return self._table().html()

    def to_pandas(self) -> DataFrame:
        """Return the table as a pandas DataFrame.

        Raises:
            InputError: pandas is not installed.
        """
        return self._table().frame()

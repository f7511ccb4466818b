"""Tables in a terminal: in parts that fit, with marks, and names that are never read as markup."""

from __future__ import annotations

from rich.table import Table as RichTable

from layerimp._table import Cell, Column, Table
from layerimp.cli.tables import parts

SHARE = Cell(0.5, "50.0%", "± 1.0%", 0.01, best=True)
TABLE = Table(
    [
        Column("data set", ["[b]mood[/b]", "prose"], "left"),
        Column("metric", ["acc", "ppl"], "left"),
        *(Column(f"s{n}", [SHARE, Cell(0.25, "25.0%")]) for n in range(5)),
    ],
    "title",
    naming=2,
)


def heads(table: RichTable) -> list[str]:
    return [str(column.header) for column in table.columns]


def cells(table: RichTable, head: str) -> list[str]:
    (column,) = (column for column in table.columns if str(column.header) == head)
    return [str(cell) for cell in column.cells]


def test_a_table_that_fits_is_whole() -> None:
    (whole,) = parts(TABLE, lambda _: True)
    assert heads(whole) == TABLE.heads
    assert cells(whole, "data set") == ["[b]mood[/b]", "prose"]
    assert cells(whole, "s0") == ["50.0% ± 1.0% *", "25.0%  "]
    assert [column.justify for column in whole.columns] == ["left", "left", *["right"] * 5]


def test_errors_go_below_before_a_table_is_divided() -> None:
    (narrow,) = parts(TABLE, lambda table: "\n" in cells(table, heads(table)[-1])[0])
    assert cells(narrow, "s0") == ["50.0% *\n± 1.0%  ", "25.0%  "]
    both = Table([Column("scorer", ["avss"]), Column("acc", [Cell(0.5, "0.5", "± 0.1 (0.03)")])])
    assert cells(parts(both, lambda _: False)[0], "acc") == ["0.5 ± 0.1 (0.03)"], "one column is never divided"
    both = Table([*both.columns, Column("f1", both.columns[1].values)])
    (narrow,) = parts(both, lambda table: "\n" in cells(table, heads(table)[1])[0])
    assert cells(narrow, "acc") == ["0.5\n± 0.1\n(0.03)"]


def test_every_part_begins_with_what_names_the_rows() -> None:
    divided = parts(TABLE, lambda table: len(table.columns) <= 5)
    assert [heads(table)[:2] for table in divided] == [["data set", "metric"]] * 2
    assert [head for table in divided for head in heads(table)[2:]] == [f"s{n}" for n in range(5)]
    assert [len(table.columns) for table in parts(TABLE, lambda table: len(table.columns) <= 6)] == [5, 4], (
        "no column alone"
    )
    assert len(parts(TABLE, lambda _: False)) == 5, "what fits nowhere is shown all the same"


def test_rows_have_their_styles() -> None:
    values = Column("score", [1.0, 2.0])
    (whole,) = parts(Table([Column("block", [0, 1]), values], styles=["", "red"]), lambda _: True)
    assert [row.style for row in whole.rows] == ["", "red"]

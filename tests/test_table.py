"""Results show themselves as tables in a notebook, and convert to pandas."""

from __future__ import annotations

import re

from layerimp import Importance, PrunePlan
from layerimp._table import Cell, Column, Table, escaped_for_latex

TABLE = Table(
    [
        Column("<name>", ["<b>a</b>", None], "left"),
        Column("count", [12345, True]),
        Column("value\n(mean)", [Cell(0.123456, error="± 0.012"), 1e-7]),
        Column("share|%", [Cell(0.5, "50.0%", best=True), ""]),
    ],
    "a < b & c",
)


def test_html_is_escaped() -> None:
    html = TABLE.html()
    assert re.findall(r"<th[^>]*>(.*?)</th>", html) == ["&lt;name&gt;", "count", "value (mean)", "share|%"]
    cells = re.findall(r"<td[^>]*>(.*?)</td>", html)
    assert cells == ["&lt;b&gt;a&lt;/b&gt;", "12,345", "0.1235 ± 0.012", "<b>50.0%</b>", "", "True", "1e-07", ""]
    assert "a &lt; b &amp; c</caption>" in html
    sides = re.findall(r"\.col(\d) \{\s*text-align: (\w+);", html)
    assert sides == [("0", "left"), ("1", "right"), ("2", "right"), ("3", "right")]
    assert html == TABLE.html(), "the same table is the same text"
    assert "<caption>" not in Table(TABLE.columns).html()


def test_markdown_keeps_its_columns() -> None:
    assert TABLE.markdown().splitlines() == [
        "## a < b & c",
        "",
        r"| <name> | count | value (mean) | share\|% |",
        "| --- | ---: | ---: | ---: |",
        "| <b>a</b> | 12,345 | 0.1235 ± 0.012 | **50.0%** |",
        "|  | True | 1e-07 |  |",
    ]


def test_latex_is_plain_text() -> None:
    latex = TABLE.latex()
    assert latex.isascii()
    assert r"\caption{a $<$ b \& c}" in latex
    assert r"\begin{tabular}{lrrr}" in latex
    assert r"$<$b$>$a$<$/b$>$ & 12,345 & 0.1235 $\pm$ 0.012 & \textbf{50.0\%} \\" in latex
    assert all(rule in latex for rule in (r"\toprule", r"\midrule", r"\bottomrule"))
    assert escaped_for_latex("a_b ^ ~ {\\}") == r"a\_b \textasciicircum{} \textasciitilde{} \{\textbackslash{}\}"


def test_a_part_has_the_rows_that_hold_anything_with_their_styles() -> None:
    columns = [Column("name", ["a", "b", "c"]), Column("x", [1, 2, 3]), Column("y", [None, "", 5], kind="part")]
    part = Table(columns, "all", notes=["n"], styles=["red", "", "blue"]).of("part", title="part")
    assert [[str(cell) for cell in row] for row in part.rows] == [["c", "5"]]
    assert (part.heads, part.title, part.notes, part.styles) == (["name", "y"], "part", (), ["blue"])


def test_a_frame_has_the_whole_numbers() -> None:
    frame = Table([Column("value", [Cell(0.123456, "0.12"), 1.0]), Column("name", ["a", "b"])]).frame()
    assert frame.to_dict("list") == {"value": [0.123456, 1.0], "name": ["a", "b"]}


def test_importance_is_a_table_in_depth_order() -> None:
    importance = Importance([3.0, 1.0, 2.0], blocks=[2, 0, 1], columns={"share": [0.5, 0.125, 0.25]})
    frame = importance.to_pandas()
    assert frame.to_dict("list") == {"block": [0, 1, 2], "score": [1.0, 2.0, 3.0], "share": [0.125, 0.25, 0.5]}
    html = importance._repr_html_()
    assert html.index(">0.125<") < html.index(">0.25<") < html.index(">0.5<")
    assert list(Importance([1.0]).to_pandas().columns) == ["block", "score"]


def test_a_plan_is_a_table_in_the_order_of_removal() -> None:
    plan = PrunePlan(num_blocks=6, blocks=[4, 0], scorer="<avss>", pruner="lowest")
    assert plan.to_pandas().to_dict("list") == {"order": [1, 2], "removed": [4, 0]}
    assert "&lt;avss&gt;, lowest: 2 of 6 blocks</caption>" in plan._repr_html_()
    assert "to_pandas" not in plan.model_dump()

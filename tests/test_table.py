"""Results show themselves as tables in a notebook, and convert to pandas."""

from __future__ import annotations

import sys

import pytest

from layerimp import Importance, PrunePlan
from layerimp._table import Column, Table
from layerimp.errors import InputError


def test_cells_are_escaped_and_numbers_cut() -> None:
    columns = [
        Column("<name>", ["<b>a</b>", None]),
        Column("count", [12345, True]),
        Column("value", [0.123456, 1e-7], [0.0123456, None]),
        Column("share", [0.5, None], form=".1%", tags=["b", ""]),
    ]
    html = Table(columns, "a < b").html()
    assert "<th>&lt;name&gt;</th>" in html
    assert "&lt;b&gt;a&lt;/b&gt;" in html
    assert "a &lt; b</caption>" in html
    for text in (">12,345<", ">True<", ">0.1235 ± 0.012<", ">1e-07<", "><b>50.0%</b><", "></td>"):
        assert text in html, text
    assert html.count("<tr>") == 3


def test_a_frame_has_the_whole_numbers_and_the_errors() -> None:
    frame = Table([Column("value", [0.123456, 1.0], [0.5, None]), Column("name", ["a", "b"])]).frame()
    assert list(frame.columns) == ["value", "value stderr", "name"]
    assert frame["value"].tolist() == [0.123456, 1.0]
    assert frame["value stderr"].isna().tolist() == [False, True]


def test_importance_is_a_table_in_depth_order() -> None:
    importance = Importance([3.0, 1.0, 2.0], blocks=[1, 0, "0/1"], columns={"share": [0.5, 0.125, 0.25]})
    frame = importance.to_pandas()
    assert frame.to_dict("list") == {"step": [0, "0/1", 1], "score": [1.0, 2.0, 3.0], "share": [0.125, 0.25, 0.5]}
    html = importance._repr_html_()
    assert html.index(">0.125<") < html.index(">0/1<") < html.index(">0.5<")
    assert list(Importance([1.0]).to_pandas().columns) == ["block", "score"]


def test_a_plan_is_a_table_in_the_order_of_removal() -> None:
    plan = PrunePlan(num_blocks=6, blocks=[4, "0/1"], scorer="<avss>", pruner="lowest")
    assert plan.to_pandas().to_dict("list") == {"order": [1, 2], "removed": [4, "0/1"], "kind": ["block", "seam"]}
    assert "&lt;avss&gt;, lowest: 2 of 6 blocks</caption>" in plan._repr_html_()
    assert "to_pandas" not in plan.model_dump()


def test_without_pandas_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match="pip install pandas"):
        Importance([1.0]).to_pandas()
    assert "<table>" in Importance([1.0])._repr_html_()

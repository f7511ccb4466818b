"""The tables of a grid: their layout, their marks and their numbers, in every format."""

from __future__ import annotations

import csv
import io
import math
import re
from pathlib import Path

import pytest
from support.grids import findings, harming, row

from layerimp.cli.tables import paper, summary
from layerimp.report.document import Results
from layerimp.report.formats import as_csv, as_latex, as_markdown
from layerimp.report.tables import amounts, between, number, paper_tables, summaries


@pytest.fixture
def found(tmp_path: Path) -> Results:
    return findings(tmp_path, repeats=3)


def test_the_tables_have_the_layout_of_the_paper(found: Results) -> None:
    (table,) = paper_tables(found)
    assert table.title == "lowest, 25%"
    assert table.head == [
        *("data set", "model", "metric", "original", "avss", "gbis", "random", "depth", "block-influence"),
        "parameter reduction",
    ]
    assert [cells[0].text for cells in table.rows] == ["mood (n = 100)", "prose (n = 100)", *["retained"] * 3]
    assert table.rows[0][-1].text == "25.0% of blocks, 11.1% of parameters"
    markdown = as_markdown(found)
    assert markdown.count("\n| mood ") == 1
    assert as_latex(found).count("&") == 6 * (len(table.head) - 1)
    rows = list(csv.DictReader(io.StringIO(as_csv(found))))
    assert float(rows[0]["avss"]) == row(found, "mood").entries["avss"].value.mean
    assert float(rows[0]["avss_low"]) < float(rows[0]["avss"]) < float(rows[0]["avss_high"])
    assert rows[0]["depth_low"] == ""


def test_marks_in_every_format(tmp_path: Path) -> None:
    clear = harming({"avss": 0.1, "gbis": 0.2, "random": 0.3, "depth": 0.3, "block-influence": 0.4})
    found = findings(tmp_path, clear, counts=[1], tasks=["mood"])
    assert as_markdown(found).count("**") == 2 * 2, "of the task, and of what is retained"
    assert "**0.8000 (0.0010)**" in as_markdown(found)
    assert as_latex(found).count(r"\textbf") == 2
    assert r"\textbf{0.8000 (0.0010)}" in as_latex(found)


def test_latex_is_plain_text(found: Results) -> None:
    assert "−" in as_markdown(found)
    assert as_latex(found).isascii()


def test_the_summary_has_a_line_for_each_scorer(tmp_path: Path) -> None:
    found = findings(tmp_path, counts=[1], ratios=[0.5], repeats=2)
    (table,) = summaries(found)
    share = found.models["one"].headlines[0].removed_parameters[0]
    assert table.head[:2] == ["scorer", f"1 block\n{share:.1%} of parameters"]
    assert re.fullmatch(r"50% of blocks\n\d+\.\d% of parameters", table.head[2])
    means = {
        scorer: sum(one.entries[scorer].value.mean for one in found.models["one"].headlines)
        for scorer in found.design.scorers
    }
    assert [line[0].text for line in table.rows] == sorted(means, key=lambda scorer: -means[scorer])


def test_a_wide_table_is_printed_in_parts_that_fit(found: Results) -> None:
    (table,) = paper_tables(found)
    assert len(paper(table, lambda _: True)) == 1
    parts = paper(table, lambda part: len(part.columns) <= 5)
    names = [str(column.header) for part in parts for column in part.columns[3:]]
    assert names == [*table.head[3:-1]]
    assert all([str(column.header) for column in part.columns[:3]] == ["data set", "model", "metric"] for part in parts)


def test_every_ratio_has_its_share_of_the_parameters(tmp_path: Path) -> None:
    """Wherever a share of the blocks is named, the share of the parameters stands beside it."""
    found = findings(tmp_path, counts=[1], ratios=[0.5], repeats=2)
    asked = amounts(found)
    assert [text.partition(" (")[0] for text in asked] == ["1 block", "50% of blocks"]
    assert all(re.search(r"\(\d+\.\d% of parameters\)$", text) for text in asked)
    frame = found.to_pandas()
    assert (frame["removed_parameters_low"] <= frame["removed_parameters_high"]).all()
    assert (frame["removed_parameters_high"] < 1).all()
    assert between(0.1841, 0.1842) == "18.4%"
    assert between(0.184, 0.2) == "18.4% to 20.0%"


def test_a_wide_summary_is_printed_in_parts_that_fit(tmp_path: Path) -> None:
    (table,) = summaries(findings(tmp_path, counts=[1], ratios=[0.5], repeats=2))
    parts = summary(table, lambda part: len(part.columns) <= 2)
    assert [[str(column.header) for column in part.columns] for part in parts] == [
        ["scorer", table.head[1]],
        ["scorer", table.head[2]],
    ]


def test_names_from_outside_break_no_table(tmp_path: Path) -> None:
    found = findings(tmp_path, models={"a_b": "one"}, tasks=["mood"], scorers={"x_y": {"name": "avss"}})
    assert r"a\_b" in as_latex(found)
    assert r"x\_y" in as_latex(found)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.0, "0.000"),
        (0.9, "0.9000"),
        (12.3456, "12.35"),
        (123456.7, "123457"),
        (4.7e9, "4.700e+09"),
        (1e-5, "1.000e-05"),
        (math.inf, "∞"),
        (-math.inf, "-∞"),
    ],
)
def test_numbers_are_short(value: float, said: str) -> None:
    assert number(value) == said

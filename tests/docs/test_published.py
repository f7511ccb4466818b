"""The page on the AVSS paper shows its table 1 as published, with tasks that exist."""

from __future__ import annotations

import pages
import published


def test_the_best_of_each_row_is_bold() -> None:
    head, rows = published.table()
    assert head[-4:] == ["`gbis`", "`lrp`", "`cim`", "`avss`"]
    best = [[cell.startswith("**") for cell in row[-4:]] for row in rows]
    assert [sum(row) for row in best] == [1] * 12
    assert sum(row[-1] for row in best) == 9  # AVSS
    pile = next(row for row in rows if row[:3] == ["`layerimp_pile`", "perplexity", "LLaMA-8B"])
    assert pile[4:] == ["0.225", "6.143", "6.973", "7.196", "**6.544**", "7.066"]


def test_the_page_has_the_table_and_its_tasks_exist() -> None:
    page = (pages.ROOT / "docs" / "choose" / "reproduce-the-paper.md").read_text(encoding="utf-8")
    assert "<!-- generated: published -->" in page
    tasks = (pages.ROOT / "plugins" / "tasks").rglob("*.yaml")
    assert {row[0].strip("`") for row in published.table()[1]} <= {path.stem for path in tasks}

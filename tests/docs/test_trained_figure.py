"""The figure of what training recovers shows the numbers that are kept, and so does the page."""

from __future__ import annotations

import math

import pages
import trained
from support.pictures import alike

SHOWN = (pages.ROOT / "docs" / "figures" / "training.svg").read_text(encoding="utf-8")
PAGE = (pages.ROOT / "docs" / "repair" / "healing.md").read_text(encoding="utf-8")


def test_the_figure_shows_the_numbers_that_are_kept() -> None:
    assert alike(SHOWN, trained.picture()), "python docs/tools/regenerate.py docs/figures/training.svg"
    assert {name for name, _, _ in trained.lines()} == set(trained.SHOWN.values())


def test_the_page_says_what_was_measured() -> None:
    """For each way, the page has a row with its steps or tokens, and with what it recovers."""
    for line in trained.results():
        rows = [row for row in PAGE.splitlines() if f"{line['curve'][-1]['tokens']:,} |" in row]
        share = f"{trained.recovered(line, line['curve'][-1]):.1%}"
        assert any(share in row for row in rows) or line["way"] == "control", (line["model"], line["way"], share)


def test_what_is_recovered_is_a_share_of_the_lost_loss() -> None:
    line = {"intact": {"losses": [1.0, 2.0], "accuracy": []}, "pruned": {"losses": [2.0, 4.0], "accuracy": []}}
    assert math.isclose(trained.recovered(line, {"losses": [1.5, 3.0]}), 0.5)
    line["intact"]["accuracy"], line["pruned"]["accuracy"] = [0.9], [0.5]
    assert math.isclose(trained.recovered(line, {"losses": [9.0], "accuracy": [0.8]}), 0.75)

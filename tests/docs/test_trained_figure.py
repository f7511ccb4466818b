"""The figure and the table of what training recovers show the numbers that are kept."""

from __future__ import annotations

import math

import pages
import trained
from support.pictures import alike

SHOWN = (pages.ROOT / "docs" / "figures" / "training.svg").read_text(encoding="utf-8")


def test_the_figure_shows_the_numbers_that_are_kept() -> None:
    assert alike(SHOWN, trained.picture()), "python docs/tools/regenerate.py docs/figures/training.svg"
    assert {name for name, _, _ in trained.lines()} == set(trained.SHOWN.values())


def test_the_table_has_a_row_for_each_training() -> None:
    head, rows = trained.table()
    named = [dict(zip(head, row, strict=True)) for row in rows]
    assert len(rows) == len(trained.results())
    for line in trained.results():
        last, intact = line["curve"][-1], line["way"] == trained.CONTROL
        (row,) = (
            row
            for row in named
            if row["tokens"] == f"{last['tokens']:,}"
            and row["recovered"] == f"{trained.recovered(line, last) - intact:.1%}"
        )
        assert row["without"].replace(", ", ",") == ("none" if intact else line["blocks"])
        assert all(
            f"`{name}={line['options'][name]}`" in row["options"] for name in {"loss", "rate"} & line["options"].keys()
        )


def test_the_page_says_what_the_table_bears() -> None:
    head, rows = trained.table()
    named = [dict(zip(head, row, strict=True)) for row in rows]

    def recovered(without: str, *options: str) -> dict[int, float]:
        """What is recovered, by minutes, of the rows with these options."""
        return {
            int(row["minutes"]): float(row["recovered"].rstrip("%"))
            for row in named
            if row["without"] == without and row["options"] == ", ".join(f"`{option}`" for option in options)
        }

    smollm2 = "12-15, 17, 25-26"
    assert (
        max(recovered(smollm2, "first=linear", "learns=all").values())
        > max(recovered(smollm2, "learns=all").values()) + 10
    )
    quick = recovered("1, 2, 4", "first=linear", "learns=all", "rate=5e-4", "rows=16")
    assert len(quick) == 2
    assert quick[max(quick)] < quick[min(quick)]
    (slow,) = recovered("1, 2, 4", "first=linear", "learns=all", "rate=1e-4", "rows=16").values()
    assert slow > max(quick.values()) + 10


def test_what_is_retained_is_what_a_model_knows_beyond_chance() -> None:
    line = {"intact": {"losses": [2.0, 2.0], "accuracy": []}, "chance": [7.0, 7.0]}
    assert math.isclose(trained.retained(line, {"losses": [3.0, 4.0]}), 0.7)
    line = {"intact": {"losses": [0.3], "accuracy": [0.9]}, "chance": [0.7]}
    assert trained.retained(line, {"losses": [0.5], "accuracy": [trained.FLOOR]}) == 0
    assert trained.retained(line, {"losses": [0.5], "accuracy": [0.9]}) == 1


def test_what_is_recovered_is_a_share_of_the_lost_loss() -> None:
    line = {"intact": {"losses": [1.0, 2.0], "accuracy": []}, "pruned": {"losses": [2.0, 4.0], "accuracy": []}}
    assert math.isclose(trained.recovered(line, {"losses": [1.5, 3.0]}), 0.5)
    line["intact"]["accuracy"], line["pruned"]["accuracy"] = [0.9], [0.5]
    assert math.isclose(trained.recovered(line, {"losses": [9.0], "accuracy": [0.8]}), 0.75)

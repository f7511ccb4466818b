"""The tables that set layerimp's model beside that of lm_eval: a row for each line that is kept, and sums that fit."""

from __future__ import annotations

import beside_lm_eval as tables
import pytest


def test_every_comparison_has_its_row() -> None:
    head, rows = tables.equality()
    lines = tables.results("harness_equality")
    assert len(rows) == len(lines)
    shown = [dict(zip(head, row, strict=True)) for row in rows]
    for line in lines:
        name = f"`{line['name']}`" + (f", {line['shots']} examples" if line["shots"] else "")
        (row,) = (
            row
            for row in shown
            if (row["model"], row["dtype"], row["task"]) == (tables.MODELS[line["model"]], line["dtype"], name)
        )
        assert row["documents"] == str(line["documents"])
        assert row["other answers"] == str(line["other_answers"] + line["other_texts"])
        assert (float(row["greatest difference"] or 0)) == pytest.approx(line["greatest"], rel=0.05)


def test_a_difference_per_token_is_the_greatest_of_those_that_are_kept() -> None:
    worst = [{"lm_eval": 0.3, "layerimp": 0.1, "tokens": 4}, {"lm_eval": -0.2, "layerimp": 0.1, "tokens": 3}]
    assert float(tables._per_token({"worst": worst})) == pytest.approx(0.1)
    assert not tables._per_token({})


def test_the_time_of_the_selection_follows_from_that_of_its_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        {"model": "gemma", "task": name, "documents": 2, "lm_eval": [4.0, 2.0, 3.0], "layerimp": [1.0]}
        for name in tables.PANEL
    ]
    monkeypatch.setattr(tables, "results", lambda name: lines)
    head, rows = tables.speed()
    shown = [dict(zip(head, row, strict=True)) for row in rows]
    assert len(shown) == len(tables.PANEL) + 1
    assert all(row["ratio"] == "0.33" for row in shown)
    blimp = 670 / (2 * tables.FILES["blimp"])
    assert float(shown[-1]["lm_eval"]) == pytest.approx(3 * (6 * 100 + blimp), abs=0.1)
    assert shown[-1]["documents"] == str(6 * 200 + 670)


def test_a_selection_that_is_not_whole_has_no_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    line = {"model": "gemma", "task": "boolq", "documents": 2, "lm_eval": [4.0], "layerimp": [1.0]}
    monkeypatch.setattr(tables, "results", lambda name: [line])
    (row,) = tables.speed()[1]
    assert row[1] == "`boolq`"


def test_rounding_moves_a_few_answers_in_a_hundred_and_no_accuracy_far() -> None:
    """What the page says of bfloat16, and of float32."""
    for line in tables.results("harness_equality"):
        share = line["other_answers"] / line["documents"]
        assert share < 0.06 if line["dtype"] == "bfloat16" else share == 0
        for metrics in line["metrics"].values():
            for theirs, ours in metrics.values():
                error = (theirs * (1 - theirs) / line["documents"]) ** 0.5
                assert abs(theirs - ours) < error / 2 or theirs == ours

"""Flips stand beside fidelity: in the DataFrame, in the tables, and on the page."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.mood import Run

from layerimp.report.document import Results
from layerimp.report.page import page
from layerimp.report.tables import fidelity


def test_a_run_shows_the_flips_of_each_task(layerimp_command: Run, scoring: list[object], task: Path) -> None:
    asked = ("--scorer", "avss", "--count", 3, "--tasks", task, "--evaluator", "harness", "--no-baselines", "--json")
    code, printed, err = layerimp_command("run", *scoring, *asked)
    assert code == 0, err
    results = Results.model_validate_json(printed)
    before = results.model.metrics["mood"]["acc"]
    after = results.model.removals[0].models[0].metrics["mood"]["acc"]
    flips = after.flips
    assert flips is not None
    assert flips.share is not None
    assert flips.share * 12 == pytest.approx(flips.to_wrong + flips.to_right), "of two answers one is right"
    assert flips.to_right - flips.to_wrong == pytest.approx(12 * (after.value - before.value))
    frame = results.to_pandas()
    rows = frame[(frame.kind == "fidelity") & (frame.task == "mood")].set_index("metric")["mean"].to_dict()
    assert rows == {"flips": flips.share, "right to wrong": flips.to_wrong, "wrong to right": flips.to_right}
    (table,) = fidelity(results)
    shown = dict(zip(table.heads, table.rows[1], strict=True))
    assert str(shown["mood flips ↓"]).startswith(f"{flips.share:.1%}")
    assert str(shown["mood to wrong / back"]) == f"{flips.to_wrong:g} / {flips.to_right:g}"
    assert "mood flips ↓" in table.markdown()
    assert "to wrong / back" in page(results)

"""The table of how far models are from the intact ones: all that was measured, under the model that it belongs to."""

from __future__ import annotations

import distances

from layerimp.report.tables.fidelity_figures import FIGURES


def test_every_model_that_was_measured_has_its_row() -> None:
    head, rows = distances.table()
    assert len(head) == 2 + len(FIGURES)
    assert all(len(row) == len(head) for row in rows)
    measured = distances.results()
    assert len(rows) == sum(1 + len(line["rows"]) for line in measured)
    starter = next(line for line in measured if line["model"] == "starter")
    assert [row["removed"] for row in starter["rows"]] == [1, 1, 3, 3, 0]


def test_a_classifier_has_no_numbers_of_text() -> None:
    head, rows = distances.table()
    begin = next(number for number, row in enumerate(rows) if row[0] == "MiniLM, SST-2")
    for row in rows[begin + 1 : begin + 6]:
        assert all(row[head.index(name)] for name in ("divergence", "agreement"))
        assert not any(row[head.index(name)] for name in ("copying", "same tokens", "loops"))


def test_the_numbers_stand_under_their_heads() -> None:
    head, rows = distances.table()
    begin = next(number for number, row in enumerate(rows) if row[0] == "starter")
    intact, first = rows[begin], rows[begin + 1]
    line = next(line for line in distances.results() if line["model"] == "starter")
    fidelity = line["rows"][0]["fidelity"]
    assert first[1] == "1 of 12, block-influence"
    assert float(first[head.index("divergence")]) == float(f"{fidelity['divergence']['mean']:.4g}")
    assert first[head.index("agreement")] == f"{fidelity['agreement']:.1%}"
    assert intact[head.index("divergence")] == ""
    assert intact[head.index("copying")] == f"{fidelity['copying']['intact']:.1%}"

"""The table of how far models are from the intact ones: all that was measured, under the model that it belongs to."""

from __future__ import annotations

from typing import Any

import distances
import pages


def test_every_model_that_was_measured_has_its_row() -> None:
    head, rows = distances.table()
    assert len(head) == 2 + len(distances.SHOWN)
    assert all(any(row[number] for row in rows) for number in range(len(head)))
    assert all(len(row) == len(head) for row in rows)
    measured = distances.results()
    assert len(rows) == sum(1 + len(line["rows"]) for line in measured)
    starter = next(line for line in measured if line["model"] == "starter")
    assert [row["removed"] for row in starter["rows"]] == [1, 1, 3, 3, 0]


def test_linear_brings_back_what_the_page_says() -> None:
    """Of the divergence of the decoders."""
    shares = []
    for line in distances.results():
        far = {(row["removed"], row["by"]): row["fidelity"]["divergence"]["mean"] for row in line["rows"]}
        if line["model"] != "minilm-sst2":
            shares += [
                1 - far[removed, "block-influence+linear"] / far[removed, by]
                for removed, by in far
                if by == "block-influence"
            ]
    page = (pages.ROOT / "docs" / "measure" / "index.md").read_text("utf-8")
    assert f"brings back {100 * min(shares):.0f} to {100 * max(shares):.0f} % of the divergence" in page


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
    assert float(first[head.index("divergence median")]) == float(f"{fidelity['divergence']['median']:.4g}")


def fidelities(model: str) -> dict[tuple[int, bool], dict[str, Any]]:
    """What was measured of a model, by the number of removed blocks and whether it is healed."""
    (line,) = (line for line in distances.results() if line["model"] == model)
    return {(row["removed"], "+" in row["by"]): row["fidelity"] for row in line["rows"]}


def test_agreement_falls_further_than_copying() -> None:
    for model, quarter in {"starter": 3, "smollm2": 7, "gemma": 4}.items():
        fidelity = fidelities(model)[quarter, False]
        assert 1 - fidelity["agreement"] > fidelity["copying"]["intact"] - fidelity["copying"]["accuracy"]


def test_healing_brings_back_a_part_of_the_divergence() -> None:
    regained, copied = {}, {}
    for model, counts in {"starter": (1, 3), "smollm2": (4, 7), "gemma": (2, 4)}.items():
        pairs = [
            (measured[count, False], measured[count, True]) for measured in [fidelities(model)] for count in counts
        ]
        regained[model] = [1 - after["divergence"]["mean"] / before["divergence"]["mean"] for before, after in pairs]
        copied[model] = [after["copying"]["accuracy"] - before["copying"]["accuracy"] for before, after in pairs]
    assert all(0.28 < share < 0.7 for shares in regained.values() for share in shares)
    assert min(copied["gemma"]) > 0.1
    assert min(copied["smollm2"]) > 0
    assert max(map(abs, copied["starter"])) < 0.01


def test_the_classifier_is_healed_without_two_blocks_alone() -> None:
    measured = fidelities("minilm-sst2")
    assert measured[1, True] == measured[1, False]
    before, after = (measured[2, healed]["divergence"]["mean"] for healed in (False, True))
    page = (pages.ROOT / "docs" / "measure" / "index.md").read_text("utf-8")
    assert f"brings back {1 - after / before:.0%}".replace("%", " %") + " of MiniLM's without two blocks" in page

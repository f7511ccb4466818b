"""The tables and the figure of the page "Which metric" come from the recipes that are kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import metrics_compared
import pages
import pytest
import which_metric
from hypothesis import given
from hypothesis import strategies as st
from support.pictures import alike

FIGURE = pages.ROOT / "docs" / "figures" / "which-metric.svg"
PAGE = (pages.ROOT / "docs" / "choose" / "index.md").read_text(encoding="utf-8")
MEASURED = [name for name in metrics_compared.TITLES if metrics_compared.results(name)]


@pytest.mark.parametrize("name", MEASURED)
def test_the_figures_are_those_of_the_recipes(name: str) -> None:
    known = which_metric.results(name)
    wanted = {part: which_metric.asked(values) for part, values in which_metric.parts(name, known).items()}
    for part, found in known.items():
        assert found["asked"] == wanted[part], f"python benchmarks/which_metric.py {name} --part {part}"


def test_every_measured_model_is_on_the_page() -> None:
    assert set(MEASURED) == {path.stem for path in which_metric.RESULTS.iterdir()}
    for name in MEASURED:
        assert f"<!-- generated: compared methods {name} -->" in PAGE
        assert f"benchmarks/which_metric.py {name} " in PAGE


def test_the_figure_shows_the_numbers_that_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = FIGURE.read_text(encoding="utf-8")
    assert alike(shown, metrics_compared.picture()), f"python docs/tools/regenerate.py docs/figures/{FIGURE.name}"
    every = {name: metrics_compared.results(name) for name in MEASURED}
    (row,) = (one for one in every["starter"]["unhealed"]["rows"] if one["removed"] == 6)
    row["entries"]["lrp"]["values"] = [value - 0.05 for value in row["entries"]["lrp"]["values"]]
    monkeypatch.setattr(metrics_compared, "results", lambda name: every.get(name, {}))
    assert not alike(shown, metrics_compared.picture())


@given(st.lists(st.floats(0, 1), max_size=6))
def test_labels_keep_their_order_and_a_distance(values: list[float]) -> None:
    places = metrics_compared.apart(values)
    for n, place in enumerate(places):
        assert place <= values[n]
        for other, value in zip(places, values, strict=True):
            assert other is place or abs(other - place) >= 0.075 - 1e-9
            assert value <= values[n] or other > place


def entry(*values: float, **others: Any) -> dict[str, Any]:
    nothing = {"to_baseline": None, "stable": None, "tasks": {}, "error": None}
    return nothing | {"values": list(values)} | others


def part(healer: str, *rows: dict[str, Any], **removable: list[int]) -> dict[str, Any]:
    """A part with one scorer, whose rows remove one block and half of four."""
    named = [{"removed": 1, "share": None}, {"removed": 2, "share": 0.5}]
    return {
        "cost": {"avss": 1.25},
        "num_blocks": 4,
        "documents": {"t": 9},
        "rows": [one | {"entries": {f"avss{healer}": row}} for one, row in zip(named, rows, strict=True)],
        "removable": {label: {"counts": counts, "at_least": False} for label, counts in removable.items()},
    }


def test_a_table_has_means_with_intervals_and_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worse, better, unclear = [-0.1, 0.01], [0.1, 0.01], [0.1, 0.06]
    found = {
        "unhealed": part(
            "",
            entry(0.8, 0.9, to_baseline=worse, stable=0.5),
            entry(0.5, 0.5, stable=1.0, tasks={"t": 0.48}),
            avss=[1, 0],
        ),
        "healed": part(
            "+linear", entry(0.95, 0.95, to_baseline=better), entry(0.6, 0.6, to_baseline=unclear, tasks={"t": 0.62})
        ),
        "trained": part("+distill", entry(0.9), entry(0.7, tasks={"t": 0.75})),
    }
    found["healed"]["removable"] = {"avss+linear": {"counts": [1, 2], "at_least": True}}
    found["trained"]["rows"][1]["entries"]["avss"] = entry(0.5)
    found["chance"] = part("", entry(0.1), entry(0.2))
    found["chance"]["rows"][1]["entries"] = {"random": entry(0.4, 0.5, 0.45, 0.9)}
    lines = [json.dumps({"part": name, **one}) + "\n" for name, one in found.items()]
    (tmp_path / "starter.jsonl").write_text("".join(lines), encoding="utf-8")
    monkeypatch.setattr(metrics_compared, "RESULTS", tmp_path)

    head, [row] = metrics_compared.table("starter")
    assert head == ["method", "1 block", "50%", "blocks at 95%", "above chance", "cost", "stable"]
    # Student's t for two values: 12.706 x 0.05.
    assert row == ["`avss`", "85.0 ± 63.5 ▼ → 95.0 ▲", "50.0 → 60.0", "0.5 → ≥ 1.5", "50%", "1.2", "75%"]
    assert metrics_compared.trained("starter")[1] == [["`avss`", "50.0", "60.0", "70.0"]]
    assert metrics_compared.tasks("starter") == (["method", "`t`"], [["`avss`", "48 → 62"]])

"""The benchmark of the page "Which metric": its parts, what is best, and the figures that are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer
import which_metric
import yaml

import layerimp
from layerimp.bench import commands


def healed(**values: list[float]) -> dict[str, Any]:
    """The figures of a healed part, with what each scorer retains at one block and at two."""
    entries = {f"{label}{end}": {"values": one} for label, one in values.items() for end in ("", "+linear")}
    reverse = {label: {"values": [1 - value for value in one["values"]]} for label, one in entries.items()}
    return {"rows": [{"removed": 2, "entries": entries}, {"removed": 1, "entries": reverse}]}


def test_the_best_scorers_retain_most_at_the_largest_amount_healed() -> None:
    part = healed(avss=[0.1, 0.2], lrp=[0.9, 0.3], cim=[0.5, 0.5], random=[1.0, 1.0], depth=[1.0, 1.0])
    part["rows"][0]["entries"]["avss"]["values"] = [1.0, 1.0]  # unhealed
    assert which_metric.by_retained(part) == ["lrp", "cim", "avss"]


@pytest.mark.parametrize("name", which_metric.EXTENTS)
def test_the_parts_are_grids(name: str) -> None:
    first = which_metric.parts(name, {})
    assert tuple(first) == which_metric.PARTS[:5]
    values = {"lrp": [0.9], "avss": [0.8], "cim": [0.7], "angular": [0.6], "taylor": [0.5], "avss-delta": [0.4]}
    every = which_metric.parts(name, {"healed": healed(**values)})
    assert tuple(every) == which_metric.PARTS
    grids = {part: layerimp.Grid.model_validate(one) for part, one in every.items()}
    assert list(grids["seams"].scorers) == ["lrp", "cim", "angular", "taylor"]  # avss reads neurons: no seams
    assert list(grids["trained"].scorers) == ["lrp", "avss"]
    assert grids["trained"].healers["distill"].options["minutes"]
    assert [grids[part].healers.keys() for part in ("unhealed", "healed")] == [set(), {"linear"}]
    assert grids["seams"].cuts == "all"
    assert len({which_metric.asked(one) for one in every.values()}) == len(every)


def test_figures_are_kept_by_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = {
        "models": ["starter"],
        "scorers": {"perplexity": None},
        "counts": [1, 2],
        "repeats": 2,
        "tasks": ["starter_stories"],
        "limit": 4,
        "calibration": {"samples": 4, "max_length": 32},
    }
    (tmp_path / "starter.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    monkeypatch.setattr(which_metric, "GRIDS", tmp_path)
    monkeypatch.setattr(which_metric, "RESULTS", tmp_path / "results")
    which_metric.keep("starter", "greedy", {"asked": "before"})
    which_metric.keep("starter", "window", {"asked": "as it was"})
    which_metric.main("starter", tmp_path / "cells", part=["greedy"])

    found = which_metric.results("starter")
    assert found["window"] == {"asked": "as it was"}
    assert found["greedy"]["asked"] == which_metric.asked(which_metric.parts("starter", {})["greedy"]) != "before"
    assert [row["removed"] for row in found["greedy"]["rows"]] == [1, 2]
    entry = found["greedy"]["rows"][1]["entries"]["perplexity+linear"]
    assert [len(removed) for removed in entry["removed"]] == [2, 2]

    (model,) = commands.stored_results(tmp_path / "cells").models.values()
    loss, nothing = (model.removed["greedy", 2, label].retained for label in ("perplexity+linear", "perplexity"))
    assert loss.worst is not None
    assert nothing.worst is not None
    (row,) = (row for row in model.headlines if row.amount == 2)
    assert entry["values"] == pytest.approx(row.entries["perplexity+linear"].values, abs=1e-4)
    assert entry["likelihood"] == entry["values"], "there are no other tasks"
    assert entry["to_unhealed"][0] == pytest.approx(loss.worst.mean - nothing.worst.mean, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "part", "why"),
    [
        ("gpt-5", "healed", "'gpt-5' is not one of starter, minilm-sst2, "),
        ("starter", "heal", "'heal' is not one of unhealed, healed, "),
        ("starter", "seams", "'seams' needs the part healed first"),
    ],
)
def test_what_cannot_be_measured_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, part: str, why: str
) -> None:
    monkeypatch.setattr(which_metric, "RESULTS", tmp_path)
    with pytest.raises(typer.BadParameter, match=why):
        which_metric.main(name, tmp_path / "cells", part=[part])

"""Documents have all documented fields, and undocumented ones are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jsonschema import ValidationError
from support.mood import Run
from support.published import checked

from layerimp.report.document import Results


def test_a_run_says_everything(layerimp_command: Run, scoring: list[object], task: Path, tmp_path: Path) -> None:
    angular = ["--scorer", "angular", "--set", "angular.window=2"]
    code, out, err = layerimp_command(
        "run", *scoring, *angular, "--tasks", task, "--ratio", 0.25, "--output", tmp_path / "out", "--json"
    )
    assert code == 0, err
    document = checked(out)
    assert document.keys() == Results.model_fields.keys()
    (model,) = document["models"].values()
    empty = {"targets", "removables", "search"}  # these were not asked for
    assert all(bool(value) is (name not in empty) for name, value in model.items())
    assert model["scored"]["angular"]["spans"].keys() == {"2"}


def test_a_grid_says_everything(layerimp_command: Run, scoring: list[object], task: Path, tmp_path: Path) -> None:
    asked = ["--tasks", task, "--repeats", 2, "--workers", 0, "--output", tmp_path / "out"]
    code, out, err = layerimp_command("bench", *scoring, "--scorer", "avss", *asked, "--json")
    assert code == 0, err
    document = checked(out)
    assert document.keys() == Results.model_fields.keys()
    (model,) = document["models"].values()
    assert all(model[part] for part in ("size", "metrics", "scored", "agreements", "removals", "rows"))
    assert all(removal["retained"] and removal["models"] for removal in model["removals"])


def test_what_is_not_documented_is_found() -> None:
    plan = {
        "num_blocks": 4,
        "blocks": [1, "2/3"],
        "reason": "",
        "scorer": None,
        "pruner": None,
        "model": None,
        "nested": None,
    }
    document = {"schema_version": "layerimp.plans/2", "plans": {"a": {"schema_version": "layerimp.plan/2", **plan}}}
    checked(json.dumps(document))
    with pytest.raises(ValidationError, match="colour"):
        checked(json.dumps(document | {"colour": "red"}))
    del document["plans"]["a"]["pruner"]
    with pytest.raises(ValidationError, match="pruner"):
        checked(json.dumps(document))

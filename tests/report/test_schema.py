"""Documents that commands print and write have exactly the documented fields and types."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from pydantic import TypeAdapter, ValidationError
from support.mood import Run

from layerimp.pruner import PrunePlan
from layerimp.report import conversion, documents
from layerimp.report.schema import DOCUMENTS


def checked(text: str) -> dict[str, Any]:
    """A document that is valid for its `schema_version`."""
    document: dict[str, Any] = json.loads(text)
    TypeAdapter(DOCUMENTS[document["schema_version"]]).validate_json(text, strict=True)
    return document


def test_a_run_and_its_files(layerimp_command: Run, scoring: list[object], task: Path, tmp_path: Path) -> None:
    angular = ["--scorer", "angular", "--set", "angular.window=2"]
    code, out, err = layerimp_command(
        "run", *scoring, *angular, "--tasks", task, "--ratio", 0.25, "--output", tmp_path / "out", "--json"
    )
    assert code == 0, err
    document = checked(out)
    everything = get_type_hints(documents.Report).keys() - {"left_out", "failed", "targets", "search"}  # nothing was
    assert document.keys() == everything
    assert document["scorers"]["angular"]["spans"].keys() == {"2"}
    for name in ("scores", "plan", "metrics"):
        checked((tmp_path / "out" / f"{name}.json").read_text())


@pytest.mark.parametrize("command", ["score", "prune", "evaluate"])
def test_the_stages(
    layerimp_command: Run, scoring: list[object], task: Path, tmp_path: Path, model_dir: Path, command: str
) -> None:
    given = {
        "score": [*scoring, "--scorer", "all"],
        "prune": ["--model", model_dir, "--blocks", "1,2", "--output", tmp_path / "out"],
        "evaluate": ["--model", model_dir, "--tasks", task],
    }
    code, out, err = layerimp_command(command, *given[command], "--json")
    assert code == 0, err
    checked(out)


def test_a_grid(layerimp_command: Run, scoring: list[object], task: Path, tmp_path: Path) -> None:
    asked = ["--tasks", task, "--repeats", 2, "--workers", 0, "--output", tmp_path / "out"]
    code, out, err = layerimp_command("bench", *scoring, "--scorer", "avss", *asked, "--json")
    assert code == 0, err
    document = checked(out)
    assert document.keys() == get_type_hints(DOCUMENTS["layerimp.findings/2"]).keys()
    (model,) = document["models"].values()
    assert all(model[part] for part in ("size", "scorers", "tau", "removed", "retained", "rows"))


def test_a_plan_is_written_whole() -> None:
    plan = PrunePlan(num_blocks=4, blocks=[3, "0/1"], reason="why", scorer="avss", pruner="lowest", model="m")
    assert conversion.plan(plan) == plan.model_dump(mode="json")


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

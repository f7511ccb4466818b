"""What is installed is listed, with its options."""

from __future__ import annotations

import json
from pathlib import Path

import layerimp_harness.tasks
import pytest
from support.mood import Run


def test_what_is_installed_is_listed(layerimp_command: Run) -> None:
    plugins = json.loads(layerimp_command("plugins", "--json")[1])["plugins"]
    assert {plugin["name"]: plugin["status"] for plugin in plugins} == dict.fromkeys(
        (
            *(
                "architectures",
                "avss",
                "baselines",
                "cim",
                "closedform",
                "distill",
                "fidelity",
                "footprint",
                "gbis",
                "greedy",
                "harness",
                "lowest",
                "lrp",
                "prose",
            ),
            *("starter", "tasks", "window"),
        ),
        "ok",
    )
    components = {plugin["name"]: plugin["components"] for plugin in plugins}
    assert components["distill"] == {"healer": ["distill"]}
    assert components["closedform"] == {"scorer": ["divergence"], "healer": ["linear", "rescale"]}
    assert components["prose"] == {}
    assert "healers linear, rescale" in layerimp_command("plugins")[1]
    (avss,) = json.loads(layerimp_command("scorers", "avss", "--json")[1])["scorers"]
    options = {option["name"]: option for option in avss["options"]}
    assert options["epsilon"] == {
        "name": "epsilon",
        "type": "float",
        "default": 0.1,
        "description": options["epsilon"]["description"],
    }
    assert all(option["description"] for option in options.values())
    assert "2411.02117" in avss["reference"]
    assert layerimp_command("scorers", "avs")[0] == 2
    assert "relative | absolute" in layerimp_command("scorers", "avss")[1]


def test_tasks_are_shown_with_the_paths_of_their_rows(layerimp_command: Run, tmp_path: Path) -> None:
    out, _ = layerimp_command.done("tasks", "--show", "boolq,layerimp_sst2", "--data-dir", str(tmp_path))
    assert "boolq: multiple_choice, 0 examples\n" in out
    assert "splits: measured validation, examples train, training train\n" in out
    places = ["boolq/validation.jsonl", "super_glue/boolq/validation.parquet", "sst2/dev.jsonl"]
    assert all(f"    {tmp_path / place}\n" in out for place in places)
    (task,) = json.loads(layerimp_command("tasks", "--show", "boolq", "--json")[1])["tasks"]
    assert task["columns"] == ["passage", "question", "label"]
    assert task["paths"]["validation"][0] == "DIR/boolq/validation.jsonl"


def test_a_name_of_no_task_is_refused_with_the_nearest(layerimp_command: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layerimp_harness.tasks, "whole_index", dict)  # lm-eval's own takes seconds to read
    err = layerimp_command.refused("tasks", "layerimp_sst3")
    assert err.startswith("layerimp: unknown task 'layerimp_sst3'. Did you mean 'layerimp_sst2'")
    assert err.count("\n") == 1


def test_tasks_to_show_are_named_after_the_option_alone(layerimp_command: Run) -> None:
    for wrong in (["--show", ","], ["--show", "boolq", "arc"]):
        assert "name tasks after --show" in layerimp_command.refused("tasks", *wrong)

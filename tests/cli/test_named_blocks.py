"""Runs in which the user names all blocks that go."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from support.mood import Run


def test_a_run_attributes_named_blocks_to_no_scorer(
    layerimp_command: Run, scoring: list[object], task: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    printed, err = layerimp_command.done("run", *scoring, "--blocks", 3, "--tasks", task, "--output", output, "--json")
    assert "score " not in err
    (model,) = json.loads(printed)["models"].values()
    assert not model["scored"]
    plan: dict[str, Any] = json.loads((output / "plan.json").read_text())["plans"]["blocks"]
    assert (plan["blocks"], plan["reason"], plan["scorer"], plan["pruner"]) == ([3], "named by the user", None, None)
    card = (output / "checkpoints" / "blocks" / "README.md").read_text()
    page = (output / "report.html").read_text()
    assert "**Method:** scorer none (label blocks), pruner none" in card
    assert "that were named are removed, and what is left is measured" in page
    assert "worth with fewer blocks?" in page
    assert "lowest-rated" not in page


def test_healers_beside_named_blocks_are_not_dropped_in_silence(
    layerimp_command: Run, scoring: list[object], tmp_path: Path
) -> None:
    recipe, plan = tmp_path / "m.json", tmp_path / "plan.json"
    plan.write_text('{"schema_version": "layerimp.plan/2", "num_blocks": 4, "blocks": [1]}')
    recipe.write_text(json.dumps({"model": str(scoring[1])}))
    command = ("prune", "--recipe", recipe, "--output", tmp_path / "out", "--dry-run")
    assert "leave out --heal" in layerimp_command.refused(*command, "--blocks", 3, "--heal", "linear")
    assert "healed" not in layerimp_command.done(*command, "--blocks", 3)[1]
    recipe.write_text(json.dumps({"model": str(scoring[1]), "healers": ["linear"]}))
    for named in (("--blocks", 3), ("--plan", plan)):
        assert "nothing is healed where" in layerimp_command.done(*command, *named)[1]


def test_no_further_text_is_needed_where_nothing_is_healed(
    layerimp_command: Run, scoring: list[object], tmp_path: Path
) -> None:
    """Nor does what is written name one, which the next command would refuse."""
    recipe, output = tmp_path / "m.json", tmp_path / "out"
    training = {"distill": {"name": "distill", "options": {"tokens": 100}}}
    recipe.write_text(json.dumps({"model": str(scoring[1]), "healers": training, "heal_text": "nowhere.jsonl"}))
    layerimp_command.done("score", "--recipe", recipe, "--scorer", "depth", "--json")
    layerimp_command.done("prune", "--recipe", recipe, "--blocks", 3, "--output", output)
    layerimp_command.done("prune", "--recipe", output / "recipe.json", "--output", tmp_path / "again")


def test_options_that_choose_are_refused_beside_named_blocks(layerimp_command: Run, scoring: list[object]) -> None:
    for option, value in (("scorer", "avss"), ("pruner", "greedy")):
        err = layerimp_command.refused("run", *scoring, "--blocks", 3, f"--{option}", value)
        assert f"--blocks names all that goes: leave out --{option}, or say with --count" in err


def test_how_to_train_is_refused_where_nothing_is_healed(layerimp_command: Run, scoring: list[object]) -> None:
    for option, value in (("minutes", 5), ("heal-text", "more.jsonl")):
        asked = ("prune", *scoring[:2], f"--{option}", value, "--output", "out")
        err = layerimp_command.refused(*asked, "--blocks", 3)
        assert f"leave out --{option}, or say with --count" in err
        err = layerimp_command.refused(*asked, "--plan", "plan.json")
        assert f"--plan and --{option} contradict each other" in err

"""An option has one value unless it is repeatable, and a model may be named without `--model`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.mood import Run
from typer.main import get_command

from layerimp.cli import app

COMMANDS = get_command(app).commands


def test_a_flag_may_be_repeated(layerimp_command: Run) -> None:
    code, out, err = layerimp_command("plugins", "--json", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["plugins"]


def params(command: str, *words: str) -> Any:
    return COMMANDS[command].make_context(command, list(words)).params


@pytest.mark.parametrize("command", ["inspect", "run", "score", "prune", "heal", "evaluate", "plan"])
def test_the_name_is_the_argument_or_an_option(layerimp_command: Run, command: str) -> None:
    what = "plan" if command == "plan" else "model"
    code, _, err = layerimp_command(command, "one", f"--{what}", "two")
    assert (code, err) == (2, f"layerimp: the {what} is given twice: 'one' as the argument, and 'two' by --{what}\n")
    assert (
        f"{what.upper()} " in layerimp_command(command, "--help")[1].partition("Arguments:")[2].partition("Options")[0]
    )
    assert {str(value) for value in params(command, "one").values() if value} == {"one"}


def test_both_forms_say_the_same(layerimp_command: Run, model_dir: Path, tmp_path: Path) -> None:
    code, out, err = layerimp_command("inspect", "--model", model_dir, "--json")
    assert (code, err, json.loads(out)["model"]) == (0, "", str(model_dir))
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps({"schema_version": "layerimp.plan/2", "num_blocks": 4, "blocks": [1]}))
    code, out, err = layerimp_command("plan", plan)
    assert (code, err) == (0, "")
    assert (code, out, err) == layerimp_command("plan", "--plan", plan)
    code, _, err = layerimp_command("heal", model_dir)
    assert (code, err) == (2, "layerimp: heal writes a checkpoint: name a directory with --output\n")

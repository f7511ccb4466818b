"""Whatever a command prints or writes as JSON has the fields that the reference lists, and no key more."""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import documents
import pytest
from support.mood import Run, mood
from support.published import checked, name_of
from typer.main import get_command

import layerimp
from layerimp.bench.grid import Grid
from layerimp.cli import app
from layerimp.pruner import PrunePlan
from layerimp.recipe import CalibrationSpec, Recipe, validated

SMALL = "--calibration TEXT --samples 8 --max-length 16"
RUN = f"run --model MODEL {SMALL} --tasks TASK"
BENCH = f"bench --model MODEL {SMALL} --scorer avss --random-draws 2 --tasks TASK --output OUT"
PRINTED = [
    (f"shrink MODEL {SMALL} --tasks TASK --count 1 --minutes 0 --output OUT", "shrink"),
    (f"shrink MODEL {SMALL} --count 1 --output OUT --dry-run", "dry-run"),
    ("inspect MODEL", "inspection"),
    (f"{RUN} --scorer angular --set angular.window=2 --heal linear --ratio 0.25 --output OUT", "results"),
    (f"{RUN} --target bytes=0.9 --no-baselines --output OUT", "results"),
    (f"{RUN} --dry-run", "dry-run"),
    (f"score --model MODEL {SMALL} --scorer all --output OUT", "results"),
    (f"score --model MODEL {SMALL} --scorer block-influence --by sublayer", "results"),
    ("prune --model MODEL --blocks 1,2 --output OUT", "results"),
    ("prune --model MODEL --blocks 1 --output OUT --dry-run", "dry-run"),
    (f"heal --model PRUNED {SMALL} --output OUT", "healing"),
    (f"heal --model PRUNED {SMALL} --output OUT --dry-run", "dry-run"),
    ("evaluate --model MODEL --tasks TASK --output OUT", "results"),
    ("compare MODEL PRUNED --text TEXT --max-length 40 --set fidelity.rows=2 --tasks TASK --output OUT", "comparison"),
    ("plan --plan PLAN", "plans"),
    (f"{BENCH} --repeats 2 --heal rescale", "results"),
    (f"{BENCH} --dry-run", "dry-run"),
    ("report GRID --format json", "results"),
    ("report PRUNED_RUN --format json", "results"),
    ("plugins", "plugins"),
    ("scorers", "components"),
    ("scorers avss", "components"),
    ("pruners", "components"),
    ("healers", "components"),
    ("evaluators", "components"),
    ("tasks", "tasks"),
    ("tasks --show layerimp_sst2", "task-details"),
    ("cache", "cache"),
    ("cache --clear all", "cache"),
]  # fmt: skip
OF_OTHERS = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"}
"""What Transformers writes into a checkpoint."""


@pytest.fixture(scope="session")
def before(model_dir: Path, calibration_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What commands start from: a pruned model, a file of plans, and the output of a grid."""
    out = tmp_path_factory.mktemp("before")
    text = {"source": str(calibration_file), "samples": 8, "max_length": 16}
    model, calibration = str(model_dir), CalibrationSpec.model_validate(text)
    layerimp.run(Recipe(model=model, scorers=["avss"], calibration=calibration, count=1, tasks=(), output=out / "run"))
    tasks = [str(mood(out))]
    sizes = {"repeats": 1, "random_draws": 1}
    grid = validated(Grid, {"models": model, "calibration": text, "scorers": ["avss"], "tasks": tasks} | sizes)
    layerimp.run_grid(grid, out / "grid")
    return {
        "PRUNED": out / "run" / "checkpoints" / "avss",
        "PRUNED_RUN": out / "run",
        "PLAN": out / "run" / "plan.json",
        "GRID": out / "grid",
    }


@pytest.fixture
def _few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layerimp.evaluation.speed.ROUNDS", 2)


@pytest.mark.usefixtures("_few_rounds")
@pytest.mark.parametrize(("line", "expected"), PRINTED, ids=[line for line, _ in PRINTED])
def test_what_a_command_prints_and_writes(
    line: str,
    expected: str,
    layerimp_command: Run,
    model_dir: Path,
    calibration_file: Path,
    task: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    out_dir = tmp_path / "out"
    places = {"MODEL": model_dir, "TEXT": calibration_file, "TASK": task, "OUT": out_dir}
    if {"PRUNED", "PRUNED_RUN", "PLAN", "GRID"} & set(line.split()):
        places |= request.getfixturevalue("before")
    words = [places.get(word, word) for word in shlex.split(line)]
    code, out, err = layerimp_command(*words, *([] if "--format" in words else ["--json"]))
    assert code == 0, err
    document = checked(out)
    assert name_of(document) == expected
    if expected == "results":
        checked(json.dumps(document["request"]))
    for path in out_dir.rglob("*.json"):
        if path.name not in OF_OTHERS:
            checked(path.read_text())
    for download in downloads(out_dir):
        checked(download)


def downloads(directory: Path) -> Iterator[str]:
    """The JSON that pages offer."""
    for page in directory.glob("report.html"):
        for content in re.findall(r"data:application/json;charset=utf-8;base64,([^\"]+)", page.read_text()):
            yield base64.b64decode(content).decode()


def test_every_command_that_prints_json_is_tried() -> None:
    commands = get_command(app).commands
    options = {
        name: {option for parameter in command.params for option in parameter.opts}
        for name, command in commands.items()
    }
    printing = {name for name, known in options.items() if known & {"--json", "--format"}}
    assert {line.split()[0] for line, _ in PRINTED} == printing == set(commands)


def test_every_document_is_tried() -> None:
    """What no command prints is written by one, or read."""
    printed = {expected for _, expected in PRINTED}
    assert set(documents.DOCUMENTS) - printed == {"recipe", "grid", "plan", "checkpoint"}


def test_a_single_plan() -> None:
    plan = PrunePlan(num_blocks=4, blocks=[3, 0], reason="why", scorer="avss", pruner="lowest", model="m")
    checked(plan.model_dump_json())

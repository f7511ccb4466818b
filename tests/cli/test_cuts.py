"""Cutting seams, and scoring attention and MLP separately, on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.by_label import by_label, results_in
from support.fake_plugins import Install
from support.mood import Run

from layerimp import PrunePlan, Pruner
from layerimp.steps import removed_by

STEPS = [0, "0/1", 1, "1/2", 2, "2/3", 3]


@pytest.fixture
def scoring(scoring: list[object]) -> list[object]:
    return [*scoring, "--scorer", "block-influence"]


@pytest.mark.parametrize("pruner", ["lowest", "greedy", pytest.param("window", marks=pytest.mark.slow)])
def test_a_run_may_cut_seams(
    layerimp_command: Run, scoring: list[object], task: Path, tmp_path: Path, pruner: str
) -> None:
    output = tmp_path / "out"
    asked = ["--cuts", "all", "--pruner", pruner, "--count", 2, "--tasks", task, "--output", output, "--json"]
    out, err = layerimp_command.done("run", *scoring, *asked)
    assert ("score block-influence of 5 candidates without" in err) == (pruner == "greedy")
    scorer = by_label(out)["scorers"]["block-influence"]
    assert scorer["blocks"] == STEPS
    assert len(scorer["scores"]) == len(STEPS)
    assert len(removed_by(scorer["removed"])) == 4
    assert results_in(output)["scorers"]["block-influence"]["blocks"] == STEPS
    assert json.loads((output / "recipe.json").read_text())["cuts"] == "all"
    config = json.loads((output / "checkpoints" / "block-influence" / "config.json").read_text())
    assert config["num_hidden_layers"] == 2


def test_scores_of_blocks_and_seams_are_one_table(layerimp_command: Run, scoring: list[object]) -> None:
    out, _ = layerimp_command.done("score", *scoring, "--cuts", "all")
    assert out.startswith("block-influence: importance of 4 blocks and 3 seams (8 rows")
    rows = [line.split()[0] for line in out.splitlines() if line.strip()[:1].isdigit()]
    assert rows == list(map(str, STEPS))


def test_attention_and_mlp_apart(layerimp_command: Run, scoring: list[object]) -> None:
    out, _ = layerimp_command.done("score", *scoring, "--by", "sublayer", "--json")
    scorer = by_label(out)["scorers"]["block-influence"]
    assert scorer["blocks"] == [f"{block}.{part}" for block in range(4) for part in ("attn", "mlp")]
    out, _ = layerimp_command.done("score", *scoring, "--by", "sublayer")
    assert "block-influence: importance of attention and MLP in 4 blocks" in out
    assert sum(len(line.split()) == 3 and line.split()[0].isdigit() for line in out.splitlines()) == 4


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["score", "--by", "sublayer", "--cuts", "all"], "--by sublayer scores what cannot go alone, and contradicts"),
        (["score", "--by", "half"], "'--by': 'half' is not one of 'block', 'sublayer'"),
        (["score", "--cuts", "seams"], "'--cuts': 'seams' is not one of 'blocks', 'all'"),
        (["score", "--cuts", "all", "--scorer", "avss"], "scorer 'avss' cannot score seams: it reads mlp_act alone"),
        (
            ["score", "--by", "sublayer", "--scorer", "depth"],
            "cannot score attention and MLP apart: it looks at nothing",
        ),
        (["prune", "--cuts", "all", "--plan", "plan.json"], "a plan says what goes: --plan and --cuts contradict"),
        (
            ["prune", "--blocks", "1", "--scorer", "lrp"],
            "--blocks names all that goes: leave out --scorer, or say with",
        ),
        (["run", "--pruner", "lowest", "--set", "lowest.exchange=1"], "unknown option 'exchange'"),
        (["run", "--pruner", "greedy", "--set", "greedy.gap_penalty=-1"], "option 'gap_penalty' of pruner 'greedy'"),
    ],
)
def test_what_does_not_go_together_is_told(
    layerimp_command: Run, model_dir: Path, calibration_file: Path, asked: list[str], said: str
) -> None:
    command, *rest = asked
    code, _, err = layerimp_command(command, "--model", model_dir, *rest)
    assert (code, err.splitlines()[-1].startswith("layerimp: ")) == (2, True)
    assert said in err


class Deepest(Pruner):
    """Supports only whole blocks."""

    name = "deepest"

    def plan(self, scoring: Any, budget: Any) -> PrunePlan:
        return PrunePlan(num_blocks=budget.num_blocks, blocks=scoring(()).weakest_first()[: budget.count])


@pytest.mark.parametrize("command", ["run", "bench"])
def test_a_pruner_that_knows_blocks_alone_is_refused(
    plugged: Any, install: Install, layerimp_command: Run, scoring: list[object], tmp_path: Path, command: str
) -> None:
    plugged(install("deepest", layerimp_pruners=lambda: [Deepest]))
    asked = ["--pruner", "deepest", "--count", 2, "--tasks", "none", "--output", tmp_path / "out"]
    err = layerimp_command.refused(command, *scoring, *asked, "--cuts", "all")
    assert err.splitlines()[-1] == (
        "layerimp: the pruner 'deepest' chooses among whole blocks alone, and --cuts all offers seams as well; pruners "
        "that choose among both: greedy, lowest, window"
    )


def test_a_grid_may_cut_seams(layerimp_command: Run, scoring: list[object], task: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    asked = ["--tasks", task, "--repeats", 2, "--output", output, "--no-baselines", "--count", 2]
    pruners = ["--pruner", "lowest", "--pruner", "greedy", "--set", "greedy.exchange=1"]
    out, _ = layerimp_command.done("bench", *scoring, *asked, *pruners, "--cuts", "all", "--json")
    document = json.loads(out)
    assert document["cells"]["failed"] == 0, document["failures"]
    (model,) = document["models"].values()
    assert model["scored"]["block-influence"]["steps"] == STEPS
    assert {removal["pruner"] for removal in model["removals"]} == {"lowest", "greedy"}
    done = document["cells"]["done"]
    out, _ = layerimp_command.done("bench", *scoring, *asked, *pruners, "--json")
    assert json.loads(out)["request"]["cuts"] == "blocks"
    (model,) = json.loads(out)["models"].values()
    assert model["scored"]["block-influence"]["steps"] == [0, 1, 2, 3]
    out, _ = layerimp_command.done("bench", *scoring, *asked, *pruners, "--cuts", "all", "--json")
    assert json.loads(out)["cells"]["done"] == done

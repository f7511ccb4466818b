"""Plan files: choosing a plan of a file, taking fewer steps of a plan, and exporting a plan for other tools."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from support.mood import Run
from transformers import AutoModelForCausalLM

from layerimp import PrunePlan
from layerimp.cli.plans import exported
from layerimp.errors import OptionError, UnknownNameError
from layerimp.recipe.plans import PlanFile, read_plans


def written(path: Path, **plans: dict[str, Any]) -> Path:
    """A file with plans, by default for a model of six blocks."""
    usual = {"schema_version": "layerimp.plan/2", "num_blocks": 6}
    filled = {label: {**usual, **plan} for label, plan in plans.items()}
    path.write_text(json.dumps({"schema_version": "layerimp.plans/2", "plans": filled}))
    return path


def test_a_plan_for_fewer_is_its_beginning(tmp_path: Path) -> None:
    path = written(tmp_path / "plan.json", a={"blocks": [4, 1, 0]}, b={"blocks": [5, 3]})
    assert {label: plan.blocks for label, plan in read_plans(path, count=2).items()} == {"a": [4, 1], "b": [5, 3]}
    assert {label: plan.blocks for label, plan in read_plans(path, ["b"], 1).items()} == {"b": [5]}
    with pytest.raises(OptionError, match="count 3 is not between 1 and 2, the number of blocks of the plan"):
        read_plans(path, ["b"], 3)
    with pytest.raises(UnknownNameError, match=r"unknown label 'c' of the plan .*plan\.json\. Known: a, b"):
        read_plans(path, ["c"])


def test_a_baseline_is_read_by_its_label(tmp_path: Path) -> None:
    plans = {label: PrunePlan(num_blocks=6, blocks=[block]) for block, label in enumerate(["avss", "random"])}
    path = tmp_path / "plan.json"
    path.write_text(PlanFile.of(plans, ["random"]).model_dump_json())
    assert read_plans(path).keys() == {"avss"}
    assert read_plans(path, ["random"]) == {"random": plans["random"]}


def test_a_plan_that_does_not_nest_is_not_shortened() -> None:
    plan = PrunePlan(num_blocks=6, blocks=[2, 3], pruner="window", nested=False)
    assert plan.shortened(2).blocks == [2, 3]
    with pytest.raises(OptionError, match="for 1 the pruner window would choose anew; run it with --count 1"):
        plan.shortened(1)
    assert PrunePlan(num_blocks=6, blocks=[2, 3], pruner="lowest", nested=True).shortened(1).blocks == [2]


def test_mergekit_gets_a_slice_for_each_run_of_kept_blocks() -> None:
    plan = PrunePlan(num_blocks=8, blocks=[6, 2, 3], model="org/model")
    assert yaml.safe_load(exported(plan, "mergekit")) == {
        "slices": [
            {"sources": [{"model": "org/model", "layer_range": [0, 2]}]},
            {"sources": [{"model": "org/model", "layer_range": [4, 6]}]},
            {"sources": [{"model": "org/model", "layer_range": [7, 8]}]},
        ],
        "merge_method": "passthrough",
    }
    assert yaml.safe_load(exported(plan, "mergekit", model="mine"))["slices"][0]["sources"][0]["model"] == "mine"


def test_llama_cpp_gets_a_rising_list() -> None:
    assert exported(PrunePlan(num_blocks=8, blocks=[6, 2, 3]), "llama.cpp") == "2,3,6\n"


def test_mergekit_needs_the_name_of_a_model() -> None:
    with pytest.raises(OptionError, match="the plan does not say which model it is for; name the model with --model"):
        exported(PrunePlan(num_blocks=6, blocks=[1]), "mergekit")


def test_a_plan_of_half_blocks_is_refused(layerimp_command: Run, tmp_path: Path) -> None:
    path = written(tmp_path / "plan.json", a={"blocks": ["1/2"]})
    err = layerimp_command.refused("plan", path)
    assert "'1/2' is no block; a block is a whole number, and only whole blocks can be removed" in err


@pytest.mark.slow
def test_mergekit_makes_the_same_model(layerimp_command: Run, model_dir: Path, tmp_path: Path) -> None:
    """The exported plan, carried out by mergekit itself, gives the weights of layerimp's checkpoint, bit for bit."""
    plan = written(tmp_path / "plan.json", mine={"num_blocks": 4, "blocks": [2, 1], "model": str(model_dir)})
    out, _ = layerimp_command.done("plan", "--plan", plan, "--export", "mergekit")
    (tmp_path / "merge.yaml").write_text(out)
    mergekit = Path(sys.executable).with_name("mergekit-yaml")
    merging = [mergekit, tmp_path / "merge.yaml", tmp_path / "merged", "--no-copy-tokenizer", "--quiet"]
    subprocess.run(merging, check=True, capture_output=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    layerimp_command.done("prune", "--model", model_dir, "--plan", plan, "--output", tmp_path / "out")
    theirs, ours = (
        AutoModelForCausalLM.from_pretrained(path).state_dict()
        for path in (tmp_path / "merged", tmp_path / "out" / "checkpoints" / "mine")
    )
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], ours[name]) for name in ours)


def test_a_part_of_a_plan_is_applied(layerimp_command: Run, model_dir: Path, tmp_path: Path) -> None:
    plan = written(tmp_path / "plan.json", a={"num_blocks": 4, "blocks": [2, 0]}, b={"num_blocks": 4, "blocks": [1]})
    asked = ["--model", model_dir, "--plan", plan, "--label", "a", "--count", 1, "--output", tmp_path / "out"]
    layerimp_command.done("prune", *asked)
    (checkpoint,) = (tmp_path / "out" / "checkpoints").iterdir()
    assert checkpoint.name == "a"
    assert json.loads((checkpoint / "layerimp.json").read_text())["removed"] == [2]


def test_the_plans_of_a_file_are_shown(layerimp_command: Run, tmp_path: Path) -> None:
    path = written(tmp_path / "plan.json", a={"blocks": [4, 2, 3], "scorer": "avss"}, b={"blocks": [1]})
    code, out, err = layerimp_command("plan", "--plan", path)
    assert (code, err) == (0, "")
    assert [line.split() for line in out.splitlines() if line.split()[:1] in (["a"], ["b"])] == [
        ["a", "2-4", "6", "blocks", "avss", "-", "-"],
        ["b", "1", "6", "blocks", "-", "-", "-"],
    ]
    code, out, _ = layerimp_command("plan", "--plan", path, "--count", 1, "--label", "a", "--json")
    assert json.loads(out)["plans"]["a"]["blocks"] == [4]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--export", "mergekit"], "holds several plans; choose one with --label: a, b"),
        (["--export", "mergekit", "--label", "a", "--json"], "--export prints the text that another tool reads"),
        (["--export", "x", "--label", "a"], "'x' is not one of 'mergekit', 'llama.cpp'"),
        (["--count", "9"], "count 9 is not between 1 and 2"),
    ],
)
def test_wrong_options_are_one_line(layerimp_command: Run, tmp_path: Path, options: list[str], said: str) -> None:
    path = written(tmp_path / "plan.json", a={"blocks": [4, 2]}, b={"blocks": [1, 2]})
    code, out, err = layerimp_command("plan", "--plan", path, *options)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


def test_a_label_needs_a_file(layerimp_command: Run, model_dir: Path) -> None:
    code, _, err = layerimp_command("prune", "--model", model_dir, "--label", "a", "--blocks", "1")
    assert (code, err) == (2, "layerimp: --label chooses a plan of a file; name the file with --plan\n")

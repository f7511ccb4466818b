"""Plans that are written are read by other commands, and others are refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.broken_checkpoints import (
    copied,
)
from support.by_label import by_label
from support.mood import Run
from transformers import AutoModelForCausalLM

ONE: dict[str, Any] = {"schema_version": "layerimp.plan/2", "num_blocks": 4, "blocks": [1]}
OF_PLANS: dict[str, Any] = {"schema_version": "layerimp.plans/2"}
READ = "the versions that are read: layerimp.plans/2, layerimp.plan/2"


def test_score_and_prune_and_plans(layerimp_command: Run, scoring: list[object], tmp_path: Path) -> None:
    out, _ = layerimp_command.done("score", *scoring, "--scorer", "avss", "--json")
    assert "removed" not in by_label(out)["scorers"]["avss"]
    out, _ = layerimp_command.done("prune", *scoring[:2], "--blocks", "3,1", "--output", tmp_path / "a", "--json")
    pruned = by_label(out)["scorers"]["blocks"]
    assert pruned["removed"] == [3, 1]
    expected = AutoModelForCausalLM.from_pretrained(pruned["checkpoint"]).state_dict()
    out, _ = layerimp_command.done(
        "prune", *scoring[:2], "--plan", tmp_path / "a" / "plan.json", "--output", tmp_path / "b", "--json"
    )
    again = AutoModelForCausalLM.from_pretrained(by_label(out)["scorers"]["blocks"]["checkpoint"]).state_dict()
    assert all(torch.equal(expected[name], tensor) for name, tensor in again.items())


@pytest.mark.parametrize(
    ("plan", "options", "said"),
    [
        (OF_PLANS | {"plans": {"../../escaped": ONE}}, [], "cannot be a label"),
        (OF_PLANS | {"plans": {"original": ONE}}, [], "cannot be a label"),
        (OF_PLANS | {"plans": {}}, [], "plan.json is no plan: it holds no plans by label"),
        (ONE | {"blocks": []}, [], "removes nothing"),
        (ONE | {"num_blocks": 5}, [], "is for 5 blocks; the model has 4"),
        (ONE | {"num_blocks": True}, [], "num_blocks: a number is needed, and true is none"),
        ({"num_blocks": 4, "blocks": [1]}, [], f"has no schema_version; {READ}"),
        ({"plans": {"a": ONE}}, [], f"has no schema_version; {READ}"),
        (OF_PLANS | {"plans": {"a": {"num_blocks": 4, "blocks": [1]}}}, [], f"has no schema_version; {READ}"),
        ({"num_blocks": 4, "blocks": [1]}, ["--protect", "1"], "--plan and --protect contradict"),
        (ONE, ["--pruner", "greedy"], "--plan and --pruner contradict"),
        ([1], [], "not a JSON object"),
        (OF_PLANS | {"plans": [ONE]}, [], "it holds no plans by label"),
        (OF_PLANS | {"plans": {"a": 5}}, [], "plan.json, 'a', is no plan: it is not a JSON object"),
        (OF_PLANS | {"plans": {"a": ONE | {"blocks": [9]}}}, [], "plan.json, 'a', is no plan: block 9 does not exist"),
        ({"schema_version": "layerimp.plans/3", "plans": {}}, [], f"'layerimp.plans/3'; {READ}"),
        ({"schema_version": "layerimp.plan/3", "num_blocks": 4, "blocks": [1]}, [], f"'layerimp.plan/3'; {READ}"),
        ({"schema_version": "layerimp.plans/2", "plans": {"a": {"schema_version": "x"}}}, [], f"'x'; {READ}"),
        ({"schema_version": "layerimp.report/2"}, [], f"the version 'layerimp.report/2'; {READ}"),
        (json.dumps(ONE)[:-1] + ', "blocks": [2]}', [], "plan.json is no plan: 'blocks' is there twice"),
        ("[" * 100_000, [], "its lists lie too deep in each other"),
    ],
    ids=lambda value: str(value)[:80],
)
def test_bad_plans_are_one_line(
    layerimp_command: Run, model_dir: Path, tmp_path: Path, plan: Any, options: list[str], said: str
) -> None:
    (tmp_path / "plan.json").write_text(plan if isinstance(plan, str) else json.dumps(plan))
    arguments = ["--model", model_dir, "--plan", tmp_path / "plan.json", "--output", tmp_path / "out", *options]
    code, _, err = layerimp_command("prune", *arguments)
    assert (code, said in err.splitlines()[-1]) == (2, True), err
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


def test_a_directory_has_a_file_of_plans(layerimp_command: Run, tmp_path: Path) -> None:
    code, out, err = layerimp_command("plan", tmp_path)
    said = f"{tmp_path} is a directory; name the file of plans in it, such as {tmp_path / 'plan.json'}"
    assert (code, out, err) == (2, "", f"layerimp: {said}\n")


def test_a_plan_is_named(layerimp_command: Run) -> None:
    code, _, err = layerimp_command("plan")
    assert (code, err) == (2, "layerimp: plan shows the plans of a file: name it, such as OUT/plan.json\n")


@pytest.mark.parametrize("whole", [True, False])
def test_a_plan_is_read_alone_and_in_a_file_of_plans(
    layerimp_command: Run, model_dir: Path, tmp_path: Path, whole: bool
) -> None:
    plan = ONE | {"blocks": [2], "reason": "why", "scorer": "avss", "pruner": "lowest", "model": str(model_dir)}
    document = OF_PLANS | {"plans": {"avss": plan}} if whole else plan
    (tmp_path / "plan.json").write_text(json.dumps(document))
    arguments = ["--model", model_dir, "--plan", tmp_path / "plan.json", "--output", tmp_path / "out"]
    _, err = layerimp_command.done("prune", *arguments)
    assert "was made for" not in err
    written = json.loads((tmp_path / "out" / "plan.json").read_text())
    assert written == OF_PLANS | {"plans": {"avss": plan | {"nested": None}}}


def test_the_recipe_of_a_single_plan_repeats_it(layerimp_command: Run, model_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(json.dumps(ONE | {"blocks": [1, 0]}))
    given = ["--model", model_dir, "--plan", tmp_path / "plan.json"]
    layerimp_command.done("prune", *given, "--output", tmp_path / "a")
    layerimp_command.done("prune", "--recipe", tmp_path / "a" / "recipe.json", "--output", tmp_path / "b")
    assert json.loads((tmp_path / "b" / "plan.json").read_text())["plans"]["blocks"]["blocks"] == [1, 0]


def test_of_a_recipe_with_a_plan_no_amount_is_read(layerimp_command: Run, model_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(json.dumps(ONE | {"blocks": [2, 1]}))
    given = ["--plan", tmp_path / "plan.json", "--count", 1, "--json"]
    for name, amount in {"ratio": {"ratio": 0.5}, "keep": {"keep": 0.9}, "blocks": {"blocks": [0]}}.items():
        (tmp_path / "recipe.json").write_text(json.dumps({"model": str(model_dir), **amount}))
        recipe = ["--recipe", tmp_path / "recipe.json", "--output", tmp_path / name]
        printed, _ = layerimp_command.done("prune", *recipe, *given)
        (model,) = by_label(printed)["scorers"].values()
        assert model["removed"] == [2]
        assert (json.loads(printed)["design"]["amounts"], json.loads(printed)["notes"]) == (["plan"], [])
        written = json.loads((tmp_path / name / "recipe.json").read_text())
        assert (written["blocks"], written.get("ratio"), written.get("keep")) == ([2], None, None)


def test_a_plan_names_its_model(layerimp_command: Run, model_dir: Path, tmp_path: Path) -> None:
    layerimp_command.done("prune", "--model", model_dir, "--blocks", 1, "--output", tmp_path / "a")
    assert json.loads((tmp_path / "a" / "plan.json").read_text())["plans"]["blocks"]["model"] == str(model_dir)
    other = copied(tmp_path / "other")
    arguments = ["--model", other, "--plan", tmp_path / "a" / "plan.json", "--output", tmp_path / "b"]
    _, err = layerimp_command.done("prune", *arguments)
    assert f"note: the plan blocks was made for {model_dir}, and is applied to {other}" in err

"""The command line: input by a user, and the output."""

from __future__ import annotations

import base64
import json
import math
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import layerimp_harness
import pytest
import torch
from safetensors.torch import load_file
from support.mood import Run
from support.tiny import tiny
from transformers import AutoModelForCausalLM
from typer.main import get_command

from layerimp.cli import app
from layerimp.errors import ModelError
from layerimp.registry.catalog import registry
from layerimp.registry.loader import PluginRecord
from layerimp.scorer import Scorer
from layerimp.sweep import Forward, Trace
from layerimp.testing import BLOCKS, tiny_tokenizer


@pytest.fixture
def scoring(model_dir: Path, calibration_file: Path) -> list[object]:
    return ["--model", model_dir, "--calibration", calibration_file, "--samples", 8, "--max-length", 16]


def test_a_whole_run(layerimp_command: Run, scoring: list[object], task: Path, tmp_path: Path) -> None:
    out_dir = tmp_path / "out"
    code, out, err = layerimp_command(
        "run", "--tasks", "none", *scoring, "--scorer", "avss", "--tasks", task, "--ratio", 0.25, "--output", out_dir
    )
    assert code == 0, err
    for stage in ("load", "read", "score avss", "original: evaluate", "avss: evaluate", "random: evaluate", "save"):
        assert stage in err
    for told in (
        "normalized",
        "cumulative",
        "✗ 1st",
        "mood",
        "acc",
        "retained",
        "±",
        "1 of 4 blocks (25.00%)",
        str(out_dir),
    ):
        assert told in " ".join(out.split()), told
    assert {path.name for path in out_dir.iterdir()} == {
        "recipe.json",
        "scores.json",
        "plan.json",
        "metrics.json",
        "report.html",
        "checkpoints",
    }
    page = (out_dir / "report.html").read_text()
    downloads = [base64.b64decode(one).decode() for one in re.findall(r'base64,([^"]*)"', page)]
    assert json.loads(downloads[1])["scorers"]["avss"]["checkpoint"] == "checkpoints/avss"
    assert not any(str(tmp_path.parent) in text for text in (page, *downloads))
    assert f"report: {out_dir / 'report.html'}" in out.replace("\n", "")
    for name in ("recipe", "scores", "plan", "metrics"):
        assert json.loads((out_dir / f"{name}.json").read_text())["schema_version"].startswith("layerimp.")
    lines = [line.strip() for line in out.splitlines() if "import AutoModel" in line or ".from_pretrained(" in line]
    scope: dict[str, Any] = {}
    exec("\n".join(lines), scope)
    assert scope["model"].config.num_hidden_layers == BLOCKS - 1
    card = (out_dir / "checkpoints" / "avss" / "README.md").read_text()
    assert "**Blocks removed:**" in card
    assert "| mood | acc |" in card


def test_a_run_as_json(layerimp_command: Run, scoring: list[object], task: Path, tmp_path: Path) -> None:
    arguments = [
        "run",
        "--tasks",
        "none",
        *scoring,
        "--scorer",
        "avss",
        "--scorer",
        "paper=avss",
        "--set",
        "paper.variant=paper",
    ]
    code, out, err = layerimp_command(*arguments, "--tasks", task, "--output", tmp_path / "out", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["num_blocks"] == BLOCKS
    assert set(found["scorers"]) == {"avss", "paper"}
    for label, one in found["scorers"].items():
        assert len(one["scores"]) == BLOCKS
        assert all(len(column) == BLOCKS for column in one["columns"].values())
        lowest = min(range(BLOCKS), key=lambda block: (one["scores"][block], -block))
        assert one["removed"] == [lowest]
        weights = load_file(Path(one["checkpoint"]) / "model.safetensors")
        assert found["parameters"]["pruned"][label] == sum(w.numel() for w in weights.values())
        before, after = (found["metrics"][key]["mood"]["acc"] for key in ("original", label))
        assert before.keys() == {"value", "stderr", "low", "high", "documents", "higher_is_better"}
        kept = found["retention"][label]["mood"]["acc"]
        assert kept == pytest.approx(after["value"] / before["value"])
        assert found["retained"][label]["mood"] is None  # at chance, as a random model is
        assert found["retained_worst"][label] is None
        assert found["footprint"][label]["parameters"] == found["parameters"]["pruned"][label]
    assert found["output"] == str(tmp_path / "out")


def test_baselines_keep_a_measured_run_company(
    layerimp_command: Run, scoring: list[object], task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[int] = []
    real = layerimp_harness.Harness.evaluate
    monkeypatch.setattr(layerimp_harness.Harness, "evaluate", lambda *a: (measured.append(1), real(*a))[1])
    arguments = [
        "run",
        "--tasks",
        "none",
        *scoring,
        "--tasks",
        task,
        "--scorer",
        "avss",
        "--scorer",
        "block-influence",
        "--json",
    ]
    code, out, err = layerimp_command(*arguments, "--output", tmp_path / "out")
    assert code == 0, err
    assert "note: evaluated as well: random, depth (--no-baselines leaves them out)" in err
    found = json.loads(out)
    labels = {"avss", "block-influence", "random", "depth"}
    assert set(found["scorers"]) == {"avss", "block-influence"}
    assert {label: one["checkpoint"] for label, one in found["baselines"].items()} == {"random": None, "depth": None}
    assert set(found["metrics"]) == set(found["footprint"]) == labels | {"original"}
    assert set(found["comparison"]["order"]) == set(found["parameters"]["pruned"]) == labels
    assert {path.name for path in (tmp_path / "out" / "checkpoints").iterdir()} == {"avss", "block-influence"}
    # Scorers that remove the same blocks share one evaluation.
    parts = found["scorers"] | found["baselines"]
    assert len(measured) == 1 + len({frozenset(one["removed"]) for one in parts.values()})
    recipe = json.loads((tmp_path / "out" / "recipe.json").read_text())
    assert list(recipe["baselines"]) == ["random", "depth"]
    code, out, err = layerimp_command(*arguments, "--no-baselines")
    assert "evaluated as well" not in err
    assert set(json.loads(out)["comparison"]["order"]) == {"avss", "block-influence"}
    code, out, err = layerimp_command("run", "--tasks", "none", *scoring, "--scorer", "avss", "--json")
    # There are no measurements by which they could be compared.
    assert not {"baselines", "comparison"} & json.loads(out).keys()
    code, out, err = layerimp_command(*arguments, "--scorer", "depth")
    assert set(json.loads(out)["baselines"]) == {"random"}


def test_baselines_that_cannot_be_are_left_out_or_named(
    layerimp_command: Run, scoring: list[object], task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "r.yaml").write_text("baselines: [rand]")
    code, _, err = layerimp_command(
        "run", "--tasks", "none", *scoring, "--tasks", task, "--recipe", tmp_path / "r.yaml"
    )
    assert (code, "unknown scorer 'rand'. Did you mean 'random'" in err) == (2, True)
    monkeypatch.delitem(registry()._classes["scorer"], "random")
    broken = PluginRecord("random", "layerimp-random", "1", error="ImportError: broken")
    monkeypatch.setattr(registry().plugins, "records", [*registry().plugins.records, broken])
    code, out, err = layerimp_command("run", "--tasks", "none", *scoring, "--tasks", task, "--json")
    assert code == 0, err
    assert "note: the scorer random is left out: scorer 'random': its plugin" in err
    assert set(json.loads(out)["baselines"]) == {"depth"}
    assert "ImportError: broken" in json.loads(out)["left_out"]["random"]


class Picky(Scorer):
    """Runs on no model at all."""

    name = "picky"

    class Nowhere(Forward):
        """A sweep that fails on every model."""

        def scout(self, stack: Any, sites: frozenset[str]) -> Any:
            raise ModelError(f"{type(stack.model).__name__} has no parallel universe")

    sweep = Nowhere()

    def update(self, trace: Trace) -> None:
        raise AssertionError

    def merge(self, other: Any) -> None:
        raise AssertionError

    def compute(self) -> Any:
        raise AssertionError


def test_all_is_every_scorer_that_works_and_fits(
    layerimp_command: Run, scoring: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = registry().names("scorer")
    monkeypatch.setitem(registry()._classes["scorer"], "picky", Picky)
    broken = PluginRecord("broken", "layerimp-broken", "1.0", error="ImportError: no module")
    monkeypatch.setattr(registry().plugins, "records", [*registry().plugins.records, broken])
    arguments = [*scoring, "--scorer", "paper=avss", "--set", "paper.variant=paper", "--scorer", "all", "--json"]
    code, out, err = layerimp_command("score", *arguments, "--set", "angular.window=2")
    assert code == 0, err
    notes = [line for line in err.splitlines() if line.startswith("note: ")]
    assert notes == [
        "note: left out of all: plugins that failed to load (broken); layerimp plugins says why",
        "note: the scorer picky is left out: LlamaForCausalLM has no parallel universe",
    ]
    found = json.loads(out)
    order = list(found["scorers"])
    assert set(order) == {*whole, "paper"}
    assert order[0] == "paper"
    assert order[-3:] == ["depth", "random", "angular"]  # of `all`, blind scorers come last; angular was named
    assert list(found["scorers"]["angular"]["spans"]) == ["2"]
    assert found["left_out"] == {"picky": "LlamaForCausalLM has no parallel universe"}
    code, _, err = layerimp_command("score", *scoring, "--scorer", "picky")
    assert (code, err.splitlines()[-1]) == (2, "layerimp: LlamaForCausalLM has no parallel universe")
    code, _, err = layerimp_command("score", *arguments, "--scorer", "picky")
    assert code == 2


def test_a_scorer_of_all_that_breaks_is_left_out(
    layerimp_command: Run, scoring: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(Picky):
        name = "broken"

        def __init__(self, num_blocks: int, config: Any = None) -> None:
            raise KeyError("oops")

    monkeypatch.setitem(registry()._classes["scorer"], "broken", Broken)
    code, out, err = layerimp_command("score", *scoring, "--scorer", "all", "--json")
    assert code == 0, err
    (told,) = json.loads(out)["left_out"].values()
    assert told.startswith("scorer 'broken' (of the module tests.test_cli) failed: KeyError: 'oops'")


def test_all_prunes_once_per_scorer_and_can_be_repeated(
    layerimp_command: Run, scoring: list[object], tmp_path: Path
) -> None:
    code, out, err = layerimp_command(
        "run", "--tasks", "none", *scoring, "--scorer", "all", "--output", tmp_path / "a", "--json"
    )
    assert code == 0, err
    first = json.loads(out)["scorers"]
    assert set(first) == set(registry().names("scorer"))
    assert all(Path(one["checkpoint"]).is_dir() for one in first.values())
    assert "all" not in json.loads((tmp_path / "a" / "recipe.json").read_text())["scorers"]
    again = layerimp_command("score", "--recipe", tmp_path / "a" / "recipe.json", "--output", tmp_path / "b", "--json")
    assert list(json.loads(again[1])["scorers"]) == list(first)


def test_a_choice_that_cannot_be_removed_exactly_is_left_out(
    layerimp_command: Run, scoring: list[object], tmp_path: Path
) -> None:
    tiny("gpt2", scale_attn_by_inverse_layer_idx=True).save_pretrained(tmp_path / "gpt2")
    tiny_tokenizer().save_pretrained(tmp_path / "gpt2")
    arguments = ["run", "--tasks", "none", *scoring, "--model", tmp_path / "gpt2", "--scorer", "all", "--json"]
    code, out, err = layerimp_command(*arguments)
    assert code == 0, err
    found = json.loads(out)
    assert found["left_out"]
    assert all("attn.scaling would change" in reason for reason in found["left_out"].values())
    assert all(one["removed"] == [BLOCKS - 1] for one in found["scorers"].values())
    assert found["left_out"].keys() | found["scorers"].keys() == set(registry().names("scorer"))
    code, _, err = layerimp_command(*arguments, "--protect", BLOCKS - 1)
    said = err.splitlines()[-1]
    assert (code, "no scorer is left" in said, "attn.scaling would change" in said) == (2, True, True)


def test_nobody_left_is_an_error(layerimp_command: Run, scoring: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry(), "_classes", registry()._classes | {"scorer": {"picky": Picky}})
    code, _, err = layerimp_command("score", *scoring, "--scorer", "all")
    said = "layerimp: no scorer is left (picky: LlamaForCausalLM has no parallel universe)"
    assert (code, err.splitlines()[-1]) == (2, said)


def test_labels_reach_a_classifier(layerimp_command: Run, tmp_path: Path) -> None:
    tiny("bert", id2label={0: "bad", 1: "good"}, label2id={"bad": 0, "good": 1}).save_pretrained(tmp_path / "bert")
    tiny_tokenizer().save_pretrained(tmp_path / "bert")
    (tmp_path / "t.jsonl").write_text('{"text": "a good film", "y": "good"}\n{"text": "a bad film", "y": "bad"}\n')
    arguments = ["score", "--model", tmp_path / "bert", "--calibration", tmp_path / "t.jsonl", "--samples", 2, "--json"]
    code, out, err = layerimp_command(*arguments, "--packing", "rows", "--label-field", "y")
    assert code == 0, err
    assert json.loads(out)["calibration"]["labels"] == {"0": 1, "1": 1}
    (tmp_path / "t.jsonl").write_text('{"text": "a good film", "y": "great"}\n')
    code, _, err = layerimp_command(*arguments, "--packing", "rows", "--label-field", "y")
    assert code == 2
    assert "'y' holds 'great', which is no label of the model; it knows: bad (0), good (1)" in err.splitlines()[-1]


def test_a_task_brings_its_labels_to_a_classifier(layerimp_command: Run, tmp_path: Path) -> None:
    tiny("distilbert", num_labels=2).save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    (tmp_path / "sst2").mkdir()
    lines = [json.dumps({"sentence": "a good film", "label": number % 2}) for number in range(6)]
    for split in ("train", "dev"):
        (tmp_path / "sst2" / f"{split}.jsonl").write_text("\n".join(lines))
    arguments = ["--model", tmp_path / "model", "--calibration", "task:layerimp_sst2", "--data-dir", tmp_path]
    code, out, err = layerimp_command("score", *arguments, "--samples", 6, "--max-length", 16, "--json")
    assert code == 0, err
    assert json.loads(out)["calibration"]["labels"] == {"0": 3, "1": 3}
    code, _, err = layerimp_command("score", *arguments, "--field", "sentence")
    assert (code, "says itself where its text and its labels are" in err.splitlines()[-1]) == (2, True)


def test_the_intact_metrics_are_used_again(
    layerimp_command: Run, model_dir: Path, task: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    real = layerimp_harness.Harness.evaluate
    monkeypatch.setattr(layerimp_harness.Harness, "evaluate", lambda *a: (calls.append(1), real(*a))[1])
    arguments = ["evaluate", "--model", model_dir, "--tasks", task, "--evaluator", "harness", "--json"]
    first, again = (layerimp_command(*arguments)[1] for _ in range(2))
    assert json.loads(first)["metrics"] == json.loads(again)["metrics"]
    assert len(calls) == 1
    layerimp_command(*arguments, "--limit", 3)
    (task.parent / "docs.jsonl").write_text((task.parent / "docs.jsonl").read_text().replace("cat", "dog"))
    layerimp_command(*arguments)
    assert len(calls) == 3


ONE: dict[str, Any] = {"schema_version": "layerimp.plan/2", "num_blocks": 4, "blocks": [1]}
OF_PLANS: dict[str, Any] = {"schema_version": "layerimp.plans/2"}
READ = "the versions that are read: layerimp.plans/1, layerimp.plans/2, layerimp.plan/1, layerimp.plan/2"


def test_score_and_prune_and_plans(layerimp_command: Run, scoring: list[object], tmp_path: Path) -> None:
    code, out, _ = layerimp_command("score", *scoring, "--json")
    assert code == 0
    assert "removed" not in json.loads(out)["scorers"]["avss"]
    code, out, err = layerimp_command("prune", *scoring[:2], "--blocks", "3,1", "--output", tmp_path / "a", "--json")
    assert code == 0, err
    found = json.loads(out)["scorers"]["blocks"]
    assert found["removed"] == [3, 1]
    expected = AutoModelForCausalLM.from_pretrained(found["checkpoint"]).state_dict()
    code, out, err = layerimp_command(
        "prune", *scoring[:2], "--plan", tmp_path / "a" / "plan.json", "--output", tmp_path / "b", "--json"
    )
    assert code == 0, err
    again = AutoModelForCausalLM.from_pretrained(json.loads(out)["scorers"]["blocks"]["checkpoint"]).state_dict()
    assert all(torch.equal(expected[name], tensor) for name, tensor in again.items())


@pytest.mark.parametrize(
    ("plan", "options", "said"),
    [
        (OF_PLANS | {"plans": {"../../escaped": ONE}}, [], "cannot be a label"),
        (OF_PLANS | {"plans": {"original": ONE}}, [], "cannot be a label"),
        (OF_PLANS | {"plans": {}}, [], "no plan in the file"),
        (ONE | {"blocks": []}, [], "removes nothing"),
        (ONE | {"num_blocks": 5}, [], "is for 5 blocks; the model has 4"),
        (ONE | {"num_blocks": True}, [], "num_blocks a number is needed, and true is none"),
        (ONE | {"blocks": [True]}, [], "True is no step"),
        (ONE | {"blocks": [7]}, [], "block 7 does not exist"),
        ({"num_blocks": 4, "blocks": [1]}, [], f"has no schema_version; {READ}"),
        ({"plans": {"a": ONE}}, [], f"has no schema_version; {READ}"),
        (OF_PLANS | {"plans": {"a": {"num_blocks": 4, "blocks": [1]}}}, [], f"has no schema_version; {READ}"),
        ({"num_blocks": 4, "blocks": [1]}, ["--protect", "1"], "--plan and --protect contradict"),
        ([1], [], "not a JSON object"),
        ({"schema_version": "layerimp.plan/2", "blocks": [1]}, [], "num_blocks"),
        (ONE | {"blocks": ["1/3"]}, [], "plan.json is no plan: 1/3 is no seam"),
        (ONE | {"blocks": [1, "1/2"]}, [], "plan.json is no plan: 1 and 1/2 both remove 1.mlp"),
        ({"schema_version": "layerimp.plans/3", "plans": {}}, [], f"'layerimp.plans/3'; {READ}"),
        ({"schema_version": "layerimp.plan/3", "num_blocks": 4, "blocks": [1]}, [], f"'layerimp.plan/3'; {READ}"),
        ({"schema_version": "layerimp.plans/2", "plans": {"a": {"schema_version": "x"}}}, [], f"'x'; {READ}"),
        ({"schema_version": "layerimp.report/2"}, [], f"the version 'layerimp.report/2'; {READ}"),
    ],
    ids=str,
)
def test_bad_plans_are_one_line(
    layerimp_command: Run, model_dir: Path, tmp_path: Path, plan: Any, options: list[str], said: str
) -> None:
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    arguments = ["--model", model_dir, "--plan", tmp_path / "plan.json", "--output", tmp_path / "out", *options]
    code, _, err = layerimp_command("prune", *arguments)
    assert (code, said in err.splitlines()[-1]) == (2, True), err
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


def test_a_plan_that_says_something_twice_is_refused(layerimp_command: Run, model_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(json.dumps(ONE)[:-1] + ', "blocks": [2]}')
    arguments = ["--model", model_dir, "--plan", tmp_path / "plan.json", "--output", tmp_path / "out"]
    code, _, err = layerimp_command("prune", *arguments)
    assert (code, "plan.json is no plan: 'blocks' is there twice" in err) == (2, True), err
    assert not (tmp_path / "out").exists()


def plan_of(model: Path, version: int) -> dict[str, Any]:
    """A plan as a version of layerimp wrote it."""
    plan = {"num_blocks": 4, "blocks": [2], "reason": "why", "scorer": "avss", "pruner": "lowest"}
    plan |= {"model": str(model)} if version > 1 else {}
    return {"schema_version": f"layerimp.plan/{version}"} | plan


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("whole", [True, False])
def test_plans_that_were_ever_written_are_read(
    layerimp_command: Run, model_dir: Path, tmp_path: Path, version: int, whole: bool
) -> None:
    plan = plan_of(model_dir, version)
    document = {"schema_version": f"layerimp.plans/{version}", "plans": {"avss": plan}} if whole else plan
    (tmp_path / "plan.json").write_text(json.dumps(document))
    arguments = ["--model", model_dir, "--plan", tmp_path / "plan.json", "--output", tmp_path / "out"]
    code, _, err = layerimp_command("prune", *arguments)
    assert code == 0, err
    assert "was made for" not in err
    written = json.loads((tmp_path / "out" / "plan.json").read_text())
    now = plan_of(model_dir, 2) | ({} if version > 1 else {"model": None}) | {"nested": None}
    assert written == {"schema_version": "layerimp.plans/2", "plans": {"avss": now}}


def test_a_plan_names_its_model(layerimp_command: Run, model_dir: Path, tmp_path: Path) -> None:
    code, _, err = layerimp_command("prune", "--model", model_dir, "--blocks", 1, "--output", tmp_path / "a")
    assert code == 0, err
    assert json.loads((tmp_path / "a" / "plan.json").read_text())["plans"]["blocks"]["model"] == str(model_dir)
    other = copied(tmp_path / "other")
    arguments = ["--model", other, "--plan", tmp_path / "a" / "plan.json", "--output", tmp_path / "b"]
    code, _, err = layerimp_command("prune", *arguments)
    assert code == 0, err
    assert f"note: the plan blocks was made for {model_dir}, and is applied to {other}" in err


def test_evaluators_keep_apart_under_labels(layerimp_command: Run, model_dir: Path, task: Path) -> None:
    arguments = ["--evaluator", "harness", "--evaluator", "few=harness", "--set", "few.num_fewshot=2"]
    code, out, err = layerimp_command("evaluate", "--model", model_dir, "--tasks", task, *arguments, "--json")
    assert code == 0, err
    assert set(json.loads(out)["metrics"]["original"]) == {"mood", "mood (few)"}


def test_narrow_terminals_lose_no_digit(
    layerimp_command: Run, scoring: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = layerimp_command("score", *scoring)[1]
    monkeypatch.setenv("COLUMNS", "60")
    narrow = layerimp_command("score", *scoring)[1]
    assert "…" not in narrow
    rules = {word for word in {*narrow.split(), *wide.split()} if set(word) == {"─"}}
    assert set(narrow.split()) - rules == set(wide.split()) - rules


def test_a_recipe_makes_the_same_run(layerimp_command: Run, scoring: list[object], tmp_path: Path) -> None:
    first = layerimp_command("run", "--tasks", "none", *scoring, "--protect", 0, "--output", tmp_path / "a", "--json")
    assert first[0] == 0, first[2]
    again = layerimp_command("run", "--recipe", tmp_path / "a" / "recipe.json", "--output", tmp_path / "b", "--json")
    assert again[0] == 0, again[2]
    assert json.loads(first[1])["scorers"]["avss"]["scores"] == json.loads(again[1])["scorers"]["avss"]["scores"]


def test_a_run_by_count(layerimp_command: Run, scoring: list[object], tmp_path: Path) -> None:
    arguments = ["run", "--tasks", "none", *scoring, "--blocks", 2, "--protect", 0, "--json"]
    code, out, err = layerimp_command(*arguments, "--count", 2, "--output", tmp_path / "count")
    assert code == 0, err
    removed = json.loads(out)["scorers"]["avss"]["removed"]
    assert removed == json.loads(layerimp_command(*arguments, "--ratio", 0.5)[1])["scorers"]["avss"]["removed"]
    assert (removed[0], len(removed), 0 in removed) == (2, 2, False)
    recipe = tmp_path / "count" / "recipe.json"
    assert {name: json.loads(recipe.read_text())[name] for name in ("count", "ratio")} == {"count": 2, "ratio": None}
    code, out, err = layerimp_command("run", "--recipe", recipe, "--json", "--output", tmp_path / "again")
    assert code == 0, err
    assert json.loads(out)["scorers"]["avss"]["removed"] == removed
    code, _, err = layerimp_command("run", "--recipe", recipe, "--ratio", 0.25, "--output", tmp_path / "ratio")
    assert code == 0, err
    written = json.loads((tmp_path / "ratio" / "recipe.json").read_text())
    assert (written["count"], written["ratio"]) == (None, 0.25)


def test_a_checkpoint_by_count(layerimp_command: Run, scoring: list[object], tmp_path: Path) -> None:
    out_dir = tmp_path / "out"
    code, _, err = layerimp_command("prune", *scoring, "--scorer", "avss", "--count", 1, "--output", out_dir)
    assert code == 0, err
    assert AutoModelForCausalLM.from_pretrained(out_dir / "checkpoints" / "avss").config.num_hidden_layers == BLOCKS - 1


def pickled(tmp_path: Path) -> Path:
    directory = tmp_path / "pickled"
    directory.mkdir()
    (directory / "config.json").write_text(tiny().config.to_json_string())
    (directory / "pytorch_model.bin").write_bytes(b"pickle")
    return directory


def blockless(tmp_path: Path) -> Path:
    directory = tmp_path / "blockless"
    directory.mkdir()
    (directory / "config.json").write_text('{"model_type": "nothing-known"}')
    (directory / "model.safetensors").write_bytes(b"")
    return directory


def empty(tmp_path: Path) -> Path:
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


def copied(directory: Path, **changes: int) -> Path:
    model = tiny("llama")
    model.save_pretrained(directory)
    tiny_tokenizer().save_pretrained(directory)
    config = json.loads((directory / "config.json").read_text()) | changes
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def truncated(tmp_path: Path) -> Path:
    directory = copied(tmp_path / "truncated")
    (directory / "model.safetensors").write_bytes((directory / "model.safetensors").read_bytes()[:5000])
    return directory


def with_fields(**fields: Any) -> Callable[[Path], Path]:
    return lambda tmp_path: copied(tmp_path / "changed", **fields)


def without_a_block(tmp_path: Path) -> Path:
    return copied(tmp_path / "without", num_hidden_layers=BLOCKS + 1)


def with_a_block_more(tmp_path: Path) -> Path:
    return copied(tmp_path / "more", num_hidden_layers=BLOCKS - 1)


def written(name: str, text: str) -> Callable[[Path], Path]:
    def write(tmp_path: Path) -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def here(name: str) -> Callable[[Path], Path]:
    return lambda tmp_path: tmp_path / name


CODE_TASK = "task: evil\ndataset_path: json\nprocess_results: !function evil.run\n"
WRONG = [
    (["--scorer", "avs"], "unknown scorer 'avs'. Did you mean 'avss'?"),
    (["--scorer", "all", "--scorer", "avs"], "unknown scorer 'avs'. Did you mean 'avss'?"),
    (["--scorer", "x=all"], "'all' stands for every scorer"),
    (["--pruner", "lowes"], "unknown pruner 'lowes'. Did you mean 'lowest'?"),
    (["--evaluator", "harnes", "--tasks", "x"], "unknown evaluator 'harnes'. Did you mean 'harness'?"),
    (["--set", "avss.sight=block_out"], "unknown option 'sight' of scorer 'avss'. Did you mean 'site'?"),
    (["--set", "avss.epsilon=small"], "option 'epsilon' of scorer 'avss'"),
    (["--set", "epsilon=1"], "--set takes LABEL.OPTION=VALUE"),
    (["--set", "paper.epsilon=1"], "unknown label 'paper'"),
    (["--ratio", "1.5"], "--ratio 1.5 is not between 0 and 1"),
    (["--ratio", "0"], "--ratio 0.0 is not between 0 and 1"),
    (["--ratio", "1"], "--ratio 1 is not between 0 and 1; a number of blocks is --count 1"),
    (["--recipe", written("n.yaml", "ratio: 1")], "ratio 1 is not between 0 and 1; a number of blocks is count: 1"),
    (["--ratio", "0.5", "--count", "1"], "ratio and count contradict each other; give one of them"),
    (["--count", "0"], "count: Input should be greater than or equal to 1, got 0"),
    (["--count", "0.5"], "integer"),
    (["--count", "4"], "removing 4 of 4 blocks leaves no model; at most 3 can go"),
    (["--count", "3", "--protect", "0,3"], "3 blocks are to go, but only 2 of 4 are not protected"),
    (["--count", "1", "--blocks", "1,2"], "count 1 removes 1 block, but 2 are named"),
    (["--ratio", "0.05"], "ratio 0.05 of 4 blocks rounds to none"),
    (["--ratio", "0.95"], "leaves no model"),
    (["--ratio", "half"], "number"),
    (["--blocks", "1,x"], "--blocks takes blocks and seams such as 5,8-10,17/18, got '1,x': 'x' is no block (5)"),
    (["--blocks", "1/3"], "1/3 is no seam, which lies between neighbours such as 1/2"),
    (["--blocks", "1.mlp"], "--blocks 1.mlp: without 1.mlp attention and MLP would not take turns"),
    (["--blocks", "1,1/2"], "1 and 1/2 both remove 1.mlp"),
    (["--blocks", "3/4"], "block 4 (3/4) does not exist: the model has blocks 0 to 3"),
    (["--blocks", "1/2", "--protect", "2"], "2.attn is both to be removed and protected"),
    (["--protect", "1/2"], "--protect takes whole blocks such as 0,15-17, got '1/2'"),
    (["--blocks", "1/2", "--pruner", "window", "--count", "2"], "a window is a run of whole blocks, and 1/2 is none"),
    (["--blocks", "9"], "block 9 does not exist: the model has blocks 0 to 3"),
    (["--protect", "0,1,2,3"], "are not protected"),
    (["--blocks", "1", "--protect", "1"], "both to be removed and protected"),
    (["--model", here("nowhere")], "does not exist"),
    (["--model", "no-such-model"], "no directory here has that name, and from the hub"),
    (["--model", empty], "is empty"),
    (["--model", pickled], "pickled weights only"),
    (["--model", blockless], "cannot load the model"),
    (["--calibration", here("nowhere.jsonl")], "does not exist"),
    (["--calibration", written("empty.jsonl", "")], "is empty"),
    (["--calibration", written("bad.jsonl", '{"text": "a"}\n{text}\n')], "line 2: not JSON"),
    (["--calibration", written("field.jsonl", '{"body": "a"}\n')], "line 1: no field 'text' (it holds: body)"),
    (["--calibration", written("blank.jsonl", '{"text": "a"}\n{"text": " "}\n')], "line 2: the field 'text' is empty"),
    (["--calibration", written("short.jsonl", '{"text": "the cat"}\n')], "holds 0 windows of 16 tokens"),
    (["--samples", "0"], "samples"),
    (["--label-field", "label"], "'label' needs the packing rows (--packing rows)"),
    (["--label-field", "label", "--packing", "rows"], "labels ('label') are for classifiers; LlamaForCausalLM is none"),
    (["--max-length", "65"], "beyond the model's 64 positions"),
    (["--tasks", "/nowhere/task.yaml"], "/nowhere/task.yaml"),
    (["--tasks", written("evil.yaml", CODE_TASK)], "--allow-task-code"),
    (["--tasks", written("broken.yaml", "task: [\n")], "broken.yaml"),
    (
        ["--task-path", here(""), "--tasks", "nothing_of_that_name"],
        "The nearest of ",
    ),
    (["--recipe", here("nowhere.yaml")], "cannot read the recipe"),
    (["--recipe", written("r.yaml", "trust_remote_code: true")], "cannot switch on trust_remote_code"),
    (
        ["--recipe", written("e.yaml", "evaluators: {harness: {options: {allow_task_code: true}}}")],
        "cannot switch on allow_task_code",
    ),
    (["--set", "harness.allow_task_code=true"], "cannot switch on allow_task_code"),
    (["--recipe", written("r.yaml", "modle: x")], "unknown recipe field 'modle'"),
    (["--recipe", written("o.yaml", "overwrite: true")], "cannot say overwrite"),
    (["--blocks", ""], "--blocks takes blocks and seams such as 5,8-10,17/18, got ''"),
    (["--calibration", written("upper.JSONL", "{text}")], "line 1: not JSON"),
    (["--calibration", written("json.txt", '{"text": "a"}')], "name it .jsonl"),
    (["--calibration", here("nowhere.csv")], "does not exist"),
    (["--model", truncated], "cannot load the model"),
    (
        ["--model", with_fields(intermediate_size=60)],
        "which is [32, 64] in the files and [32, 60] by the configuration",
    ),
    (["--model", with_fields(hidden_act="swoosh")], "KeyError: 'swoosh' (its configuration says hidden_act 'swoosh')"),
    (["--model", with_fields(dtype="float17")], "'float17' (its configuration says dtype 'float17')"),
    (["--model", with_fields(hidden_size="32")], "Field 'hidden_size' expected int, got str (value: '32')"),
    (["--model", with_fields(rms_norm_eps=math.nan)], "says rms_norm_eps nan, which must be a finite number"),
    (
        ["--model", with_fields(num_hidden_layers=0)],
        "(model.layers.0.input_layernorm.weight), but its configuration counts 0",
    ),
    (["--model", without_a_block], "do not fit its configuration: 9 missing keys"),
    (["--model", with_a_block_more], "has weights of a block 3"),
    (["--dtype", "float12"], "unknown dtype 'float12'"),
    (["--device", "warp"], "no device 'warp' here"),
    (["--device-map", "all"], "device_map: Input should be 'auto', got 'all'"),
    (["--nonsense"], "No such option"),
]


@pytest.mark.parametrize(("arguments", "said"), WRONG, ids=lambda value: value if isinstance(value, str) else None)
def test_bad_input_is_one_line(
    layerimp_command: Run, scoring: list[object], tmp_path: Path, arguments: list[Any], said: str
) -> None:
    given = [argument(tmp_path) if callable(argument) else argument for argument in arguments]
    before = set(tmp_path.iterdir())
    code, out, err = layerimp_command("run", "--tasks", "none", *scoring, *given, "--output", tmp_path / "out")
    last = err.splitlines()[-1]
    assert code == 2, err
    assert last.startswith("layerimp: ")
    assert said in last
    assert "Traceback" not in err
    assert out == ""
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("command", ["run", "score", "prune", "evaluate"])
def test_one_device_and_all_of_them_contradict_each_other(layerimp_command: Run, command: str) -> None:
    code, out, err = layerimp_command(command, "--device", "cpu", "--device-map", "auto")
    assert (code, out) == (2, "")
    assert err == "layerimp: device and device_map contradict each other; give one of them\n"


def test_a_model_with_nan_is_one_line(layerimp_command: Run, scoring: list[object], tmp_path: Path) -> None:
    model = tiny("llama")
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[0, 0] = float("nan")
    model.save_pretrained(tmp_path / "nan")
    tiny_tokenizer().save_pretrained(tmp_path / "nan")
    code, _, err = layerimp_command("score", *scoring, "--model", tmp_path / "nan")
    assert code == 2
    assert "a NaN or an infinity in its weights: in model.layers.1.mlp.down_proj.weight" in err.splitlines()[-1]


def test_what_may_be_overwritten(
    layerimp_command: Run, scoring: list[object], model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["score", *scoring, "--output"]
    assert layerimp_command(*arguments, tmp_path / "out")[0] == 0
    code, _, err = layerimp_command(*arguments, tmp_path / "out")
    assert (code, "--overwrite" in err) == (2, True)
    (tmp_path / "out" / "notes").write_text("mine")
    code, _, err = layerimp_command(*arguments, tmp_path / "out", "--overwrite")
    assert (code, "it holds 'notes', which layerimp did not write" in err) == (2, True)
    (tmp_path / "out" / "notes").unlink()
    assert layerimp_command(*arguments, tmp_path / "out", "--overwrite", "--seed", 1)[0] == 0
    assert json.loads((tmp_path / "out" / "recipe.json").read_text())["seed"] == 1
    code, _, err = layerimp_command("score", "--recipe", tmp_path / "out" / "recipe.json")
    assert code == 2  # the output of the recipe exists, and the recipe cannot say overwrite
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    monkeypatch.setenv("HOME", str(tmp_path / "mine"))
    for precious in (tmp_path / "mine", model_dir, model_dir.parent):
        (precious / "recipe.json").write_text('{"schema_version": "layerimp.recipe/1"}')
        kept = sorted(path.name for path in precious.iterdir())
        code, _, err = layerimp_command(*arguments, precious, "--overwrite")
        assert code == 2, precious
        assert "name another" in err
        assert sorted(path.name for path in precious.iterdir()) == kept
        (precious / "recipe.json").unlink()
    monkeypatch.setenv("HOME", "/nonexistent")
    code, _, err = layerimp_command(*arguments, tmp_path / "mine", "--overwrite")
    assert (code, "which layerimp did not write" in err) == (2, True)


def test_an_output_that_cannot_be_written(layerimp_command: Run, scoring: list[object], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = layerimp_command("score", *scoring, "--output", tmp_path / "file" / "out")
    assert code == 2
    assert "cannot write" in err.splitlines()[-1]


def test_no_space_is_one_line(
    layerimp_command: Run, scoring: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object, **_kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("transformers.PreTrainedModel.save_pretrained", full)
    code, _, err = layerimp_command("run", "--tasks", "none", *scoring, "--output", tmp_path / "out")
    assert code == 2
    assert "No space left on device" in err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_done_is_known_before_the_long_work(
    layerimp_command: Run, scoring: list[object], task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("layerimp_harness.Harness.evaluate", lambda *_: pytest.fail("too late"))
    arguments = ["run", "--tasks", "none", *scoring, "--tasks", task, "--output", tmp_path / "out"]
    tiny("gpt2", scale_attn_by_inverse_layer_idx=True).save_pretrained(tmp_path / "gpt2")
    tiny_tokenizer().save_pretrained(tmp_path / "gpt2")
    code, _, err = layerimp_command(*arguments, "--model", tmp_path / "gpt2", "--blocks", 1)
    assert (code, "attn.scaling would change" in err) == (2, True)
    monkeypatch.setattr("shutil.disk_usage", lambda _path: SimpleNamespace(free=1000))
    code, _, err = layerimp_command(*arguments)
    assert (code, "has 1,000 left" in err) == (2, True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("stage", "number"), [("score", signal.SIGINT), ("save", signal.SIGHUP), ("save", signal.SIGTERM)]
)
def test_an_interrupt_leaves_nothing(scoring: list[object], tmp_path: Path, stage: str, number: signal.Signals) -> None:
    """A real signal in the middle of a real run."""
    arguments = ["layerimp", "run", "--tasks", "none", *map(str, scoring), "--output", str(tmp_path / "out")]
    # Many short sleeps: a signal that arrives just before a sleep, or at another thread, does not wake the sleeper.
    slow = "import time, layerimp.pipeline.scores as s, layerimp.pipeline.output as p; "
    # What is printed is for stderr; this is said on the real stdout.
    slow += "import os; out = os.dup(1); "
    slow += "work = lambda: (os.write(out, b'now\\n'), [time.sleep(0.01) for _ in range(6000)]); "
    slow += {
        "score": "s.fill = lambda *a, **k: work()",
        "save": "p.write = lambda m, t, d, **k: ((d / 'x').write_text('x'), work())",
    }[stage]
    # If the tests are started in the background of a shell, they ignore Ctrl-C.
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    program = f"import sys; {heard}; {slow}; from layerimp.cli import main; sys.argv = {arguments!r}; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "now\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "layerimp: interrupted; nothing is left half-written"
    assert list(tmp_path.iterdir()) == []


def test_names_from_outside_are_shown_as_they_are(
    layerimp_command: Run, model_dir: Path, scoring: list[object], tmp_path: Path
) -> None:
    hostile = tmp_path / "[red]x|<b>"
    hostile.symlink_to(model_dir)
    code, out, err = layerimp_command(
        "run", "--tasks", "none", *scoring, "--model", hostile, "--output", tmp_path / "[bold]out"
    )
    assert code == 0, err
    assert "[red]x|<b>" in err
    assert "[bold]out" in out
    card = (tmp_path / "[bold]out" / "checkpoints" / "avss" / "README.md").read_text()
    assert r"\[red\]x\|\<b\>" in card
    assert "<b>" not in card


def test_help_needs_no_torch() -> None:
    program = (
        "import sys; sys.argv = ['layerimp', '--help']\n"
        "from layerimp.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'datasets', 'lm_eval', 'pydantic'} & sys.modules.keys()\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


@pytest.mark.parametrize("command", ["run", "score", "prune", "evaluate", "plugins", "scorers"])
def test_every_command_has_help(layerimp_command: Run, command: str) -> None:
    code, out, _ = layerimp_command(command, "--help")
    assert code == 0
    assert "Usage:" in out


def test_options_stand_under_headings(layerimp_command: Run) -> None:
    """Each option of each command is shown exactly once, and the most common options before all headings."""
    for name, command in get_command(app).commands.items():
        code, out, _ = layerimp_command(name, "--help")
        assert code == 0
        described = re.findall(r"^  (?:-h, )?(--[a-z-]+)", out.partition("Options:")[2], re.MULTILINE)
        declared = [option.opts[0] for option in command.params if option.param_type_name == "option"]
        assert sorted(described) == sorted([*declared, "--help"]), f"an option of {name} has no heading"
    out = layerimp_command("run", "--help")[1]
    headings = ("--model", "--scorer", "--calibration", "--tasks", "--output", "What to remove:")
    places = [out.index(text) for text in headings]
    assert places == sorted(places)
    assert "Healing:" not in layerimp_command("plan", "--help")[1]


def test_what_is_installed_is_listed(layerimp_command: Run) -> None:
    found = json.loads(layerimp_command("plugins", "--json")[1])["plugins"]
    assert {plugin["name"]: plugin["status"] for plugin in found} == dict.fromkeys(
        (
            *(
                "architectures",
                "avss",
                "baselines",
                "cim",
                "closedform",
                "distill",
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
    components = {plugin["name"]: plugin["components"] for plugin in found}
    assert components["distill"] == {"healer": ["distill"]}
    assert components["closedform"] == {"healer": ["linear", "rescale"]}
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

"""A target size is reached by the shortest plan that meets it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.by_label import by_label, results_in
from support.mood import Run
from support.tiny import UNEVEN, classifier, saved, tiny

import layerimp
from layerimp import PrunePlan, Recipe
from layerimp.models import sizing
from layerimp.models.discovery import find_blocks
from layerimp.pipeline.blocks_for_size import Goal
from layerimp.progress import SILENT
from layerimp.pruner import Budget


@pytest.fixture(scope="module")
def uneven_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with two large blocks and two small ones, as a checkpoint."""
    return saved(tiny("qwen3_moe", **UNEVEN), tmp_path_factory.mktemp("model") / "uneven")


@pytest.fixture
def asking(uneven_dir: Path, calibration_file: Path) -> list[object]:
    return ["--model", uneven_dir, "--calibration", calibration_file, "--samples", 4, "--max-length", 16]


SCORERS = ("block-influence", "random", "depth")


@pytest.mark.parametrize(
    ("pruner", "shares"),
    [
        ("lowest", (0.93, 0.75, 0.45)),
        ("window", (0.45,)),
        pytest.param("greedy", (0.75,), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_each_plan_is_the_shortest_that_holds(
    layerimp_command: Run, asking: list[object], pruner: str, shares: Sequence[float]
) -> None:
    named = [part for name in SCORERS for part in ("--scorer", name)]
    named += ["--evaluator", "footprint", "--set", "footprint.repeats=1"]

    def asked(*amount: object) -> Any:
        out, _ = layerimp_command.done("run", *asking, *named, "--pruner", pruner, "--tasks", "none", "--json", *amount)
        return by_label(out)

    by_count = {count: asked("--count", count) for count in (1, 2, 3)}
    for share in shares:
        report = asked("--target", f"parameters={share}")
        target = report["targets"]["parameters"]
        whole = report["parameters"]["original"]
        assert target["limit"] == pytest.approx(share * whole)
        for label in SCORERS:
            removed, reached = report["scorers"][label]["removed"], target["reached"][label]
            values = {0: whole} | {count: counted["parameters"]["pruned"][label] for count, counted in by_count.items()}
            assert all(value > target["limit"] for count, value in values.items() if count < len(removed))
            assert removed == by_count[len(removed)]["scorers"][label]["removed"]
            assert reached["value"] == report["parameters"]["pruned"][label] == values[len(removed)] <= target["limit"]
            assert reached["one_less"] == values[len(removed) - 1]


def test_scorers_end_at_different_counts(layerimp_command: Run, asking: list[object], task: Path) -> None:
    named = [part for name in SCORERS for part in ("--scorer", name)]
    arguments = ["run", *asking, *named, "--no-baselines"]
    out, _ = layerimp_command.done(*arguments, "--tasks", task, "--target", "parameters=0.75", "--json")
    counts = {label: len(scorer["removed"]) for label, scorer in by_label(out)["scorers"].items()}
    assert len(set(counts.values())) > 1
    out, _ = layerimp_command.done(*arguments, "--tasks", task, "--target", "parameters=0.75")
    least, most = min(counts.values()), max(counts.values())
    assert f", {least} to {most} of 4 blocks removed" in out
    assert "target parameters=0.75: at most" in out
    assert f"{most}: " in out


def test_a_run_tells_what_was_reached(
    layerimp_command: Run, model_dir: Path, calibration_file: Path, task: Path, tmp_path: Path
) -> None:
    whole = sum(parameter.numel() for parameter in tiny("llama").parameters())
    block = sum(parameter.numel() for parameter in layerimp.find_blocks(tiny("llama"))[0].parameters())
    output = tmp_path / "out"
    given = ["run", "--model", model_dir, "--calibration", calibration_file, "--samples", 4, "--max-length", 16]
    sizes = ["--target", f"bytes={4 * (whole - block) - 1}", "--target", "kv-cache=0.75"]
    out, _ = layerimp_command.done(
        *given, "--tasks", task, *sizes, "--scorer", "block-influence", "--output", output, "--json"
    )
    report = by_label(out)
    assert results_in(output)["targets"] == report["targets"]
    size = report["targets"]["bytes"]["reached"]["block-influence"]
    assert size == {
        "value": 4 * (whole - 2 * block),
        "one_less": 4 * (whole - block),
    }
    cache = report["targets"]["kv-cache"]
    assert (cache["original"], cache["limit"], cache["unit"]) == (512, 384, "bytes per token")
    assert (
        cache["reached"]["block-influence"]["value"]
        == report["footprint"]["block-influence"]["kv_bytes_per_token"]
        == 256
    )
    assert json.loads((output / "recipe.json").read_text())["targets"].keys() == {"bytes", "kv-cache"}
    card = (output / "checkpoints" / "block-influence" / "README.md").read_text()
    assert "**Target:** kv-cache=0.75: at most 384 bytes per token" in card


def test_one_step_less_than_is_forced_is_not_asked_for(layerimp_command: Run, asking: list[object]) -> None:
    arguments = ["run", *asking, "--scorer", "block-influence", "--tasks", "none", "--json"]
    out, _ = layerimp_command.done(*arguments, "--target", "parameters=0.95", "--blocks", "2,3")
    reached = by_label(out)["targets"]["parameters"]["reached"]["block-influence"]
    assert reached["one_less"] is None


def test_what_is_forced_is_part_of_a_target(layerimp_command: Run, asking: list[object]) -> None:
    arguments = ["run", *asking, "--scorer", "depth", "--tasks", "none", "--json"]
    for share, count in ((0.95, 1), (0.5, 2)):
        out, _ = layerimp_command.done(*arguments, "--target", f"kv-cache={share}", "--blocks", "1", "--protect", "3")
        report = by_label(out)
        assert report["scorers"]["depth"]["removed"] == [1, 2][:count]
        reached = report["targets"]["kv-cache"]["reached"]["depth"]
        assert reached["value"] == 512 - 128 * count == report["footprint"]["depth"]["kv_bytes_per_token"]
    err = layerimp_command.refused(*arguments, "--target", "kv-cache=0.3", "--blocks", "1", "--protect", "0,2,3")
    assert "at least 384 stay" in err  # the protected blocks


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["latency=0.7"], "unknown target 'latency'. Known: bytes, kv-cache, parameters."),
        (["parameters=3B"], "nothing has to go: the intact model is within parameters=3B"),
        (["parameters=0.01"], "are embeddings, head and what else lies outside the blocks"),
        (["kv-cache=0.2"], "no removal reaches kv-cache=0.2 (102 bytes per token): at least 128 stay, of which 0"),
        (["bytes=6gb"], "unknown unit 'gb'"),
        (["size=3"], "unknown target 'size'"),
        (["bytes=1MB", "bytes=2MB"], "comes twice"),
    ],
)
def test_what_cannot_be_asked_for_is_one_line(
    layerimp_command: Run,
    model_dir: Path,
    calibration_file: Path,
    tmp_path: Path,
    targets: Sequence[str],
    message: str,
) -> None:
    asked = [part for target in targets for part in ("--target", target)]
    code, out, err = layerimp_command(
        "prune", "--model", model_dir, "--calibration", calibration_file, "--samples", 4, "--max-length", 16, *asked,
        "--output", tmp_path / "out",
    )  # fmt: skip
    assert code == 2
    assert message in err.splitlines()[-1], err
    assert not out
    assert not (tmp_path / "out").exists()
    assert "score avss" not in err


def test_other_amounts_contradict_a_target(layerimp_command: Run, model_dir: Path, tmp_path: Path) -> None:
    for more in (["--ratio", 0.5], ["--count", 1], ["--plan", tmp_path / "plan.json"]):
        output = ["--output", tmp_path / "out"]
        err = layerimp_command.refused("prune", "--model", model_dir, "--target", "bytes=0.5", *more, *output)
        assert "contradict" in err
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"model: {model_dir}\ntargets: {{bytes: 0.001}}\ntasks: []\nscorers: [depth]\n")
    # The amount on the command line replaces the one in the file.
    out, _ = layerimp_command.done("run", "--recipe", recipe, "--count", 2, "--json")
    assert len(by_label(out)["scorers"]["depth"]["removed"]) == 2


def test_a_model_that_keeps_nothing_has_no_cache_to_ask_for(
    layerimp_command: Run, calibration_file: Path, tmp_path: Path
) -> None:
    directory = saved(classifier("llama").float(), tmp_path / "model")
    given = ["run", "--model", directory, "--calibration", calibration_file, "--samples", 4, "--max-length", 16]
    err = layerimp_command.refused(*given, "--tasks", "none", "--target", "kv-cache=0.5")
    assert "LlamaForSequenceClassification keeps nothing of the tokens that it has read" in err


def test_a_pruner_that_cannot_go_on_is_told(layerimp_command: Run, asking: list[object]) -> None:
    arguments = ["run", *asking, "--scorer", "depth", "--tasks", "none", "--pruner", "greedy"]
    err = layerimp_command.refused(*arguments, "--set", "greedy.protect_last=3", "--target", "kv-cache=0.5")
    assert "kv-cache=0.5 is not reached before 2 blocks would have to go" in err


@pytest.mark.parametrize("target", ["kv-cache=0.5", "kv-cache=1KiB"])
def test_a_cache_that_is_not_known_by_block(
    target: str, layerimp_command: Run, asking: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sizing, "cached_bytes", lambda *_: [1])
    err = layerimp_command.refused("prune", *asking, "--target", target, "--output", tmp_path / "out")
    assert "the size of the cache of Qwen3MoeForCausalLM is not known by block" in err.splitlines()[-1]


def test_no_plan_beyond_the_one_that_holds_is_asked_for() -> None:
    """A search would score once more for it."""
    model = tiny()
    whole = sum(parameter.numel() for parameter in model.parameters())
    goal = Goal.of(Recipe(targets={"parameters": whole - 1}), find_blocks(model), SILENT)
    counts = []

    def ask(budget: Budget) -> PrunePlan:
        counts.append(budget.count)
        return PrunePlan(num_blocks=4, blocks=list(range(budget.count)))

    plan, _ = goal.reached(ask)
    assert counts == [len(plan.blocks)] == [1]

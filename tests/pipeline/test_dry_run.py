"""`--dry-run` says what the command then does, and neither loads nor writes anything."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path
from typing import Any

import layerimp_harness
import pytest
from support.by_label import by_label
from support.mood import Run, changed
from support.published import checked
from support.tiny import saved, tiny
from transformers import PreTrainedModel

import layerimp
from layerimp.indices import runs_of
from layerimp.pipeline import scores
from layerimp.pipeline.dry_run import Workload
from layerimp.pipeline.memory import most_gaps
from layerimp.scoring.engine import measure
from layerimp.sweep import Ablation, Backward, Forward
from layerimp.testing import tiny_tokenizer


@pytest.fixture
def scoring(scoring: list[object]) -> list[object]:
    return [*scoring, "--scorer", "block-influence"]


@pytest.fixture
def dry_run(layerimp_command: Run, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Returns the document of a dry run, in which reading weights is an error."""

    def refuse(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("weights are read")

    def document(*args: object) -> dict[str, Any]:
        with monkeypatch.context() as patched:
            patched.setattr(PreTrainedModel, "from_pretrained", refuse)
            code, out, err = layerimp_command(*args, "--dry-run", "--json")
        assert code == 0, err
        (work,) = checked(out)["models"].values()
        return dict(work)

    return document


def made(command: Run, *args: object) -> dict[str, Any]:
    """The document of the actual command."""
    code, out, err = command(*args, "--json")
    assert code == 0, err
    return by_label(out)


AMOUNTS = [
    ["--count", 2],
    ["--ratio", 0.25],
    ["--target", "parameters=0.75"],
    ["--target", "kv-cache=0.5", "--blocks", "1"],
]


@pytest.mark.parametrize("amount", AMOUNTS)
def test_a_run_does_what_the_dry_run_says(
    layerimp_command: Run, dry_run: Any, scoring: list[object], task: Path, tmp_path: Path, amount: list[object]
) -> None:
    output = tmp_path / "out"
    measured = ["--evaluator", "harness", "--evaluator", "footprint"]
    arguments = ["run", *scoring, "--tasks", task, *measured, *amount, "--output", output]
    before = dry_run(*arguments)
    assert not output.exists()
    assert list(tmp_path.glob(".out*")) == []
    after = made(layerimp_command, *arguments)
    removed = {len(scorer["removed"]) for scorer in (after["scorers"] | after["baselines"]).values()}
    sizes, costs = before["sizes"], after["footprint"]
    assert sizes["blocks"] == {"original": 4} | dict.fromkeys(("least", "most"), 4 - next(iter(removed)))
    assert len(removed) == 1
    for name in ("parameters", "bytes"):
        assert sizes[name]["original"] == after[name]["original"]
        assert set(after[name]["pruned"].values()) == {sizes[name]["least"], sizes[name]["most"]}
    assert sizes["kv-cache"]["original"] == costs["original"]["kv_bytes_per_token"]
    assert sizes["kv-cache"]["most"] == costs["block-influence"]["kv_bytes_per_token"]
    assert before["stages"][0]["tokens"] == after["calibration"]["tokens"]
    assert before["memory"]["weights"] == before["memory"]["verifying"] == 4 * sizes["parameters"]["original"]


@pytest.mark.slow
def test_sizes_of_plans_that_are_not_known_are_ranges(
    layerimp_command: Run, dry_run: Any, calibration_file: Path, tmp_path: Path
) -> None:
    directory = saved(tiny("qwen3_moe", mlp_only_layers=[1, 3], intermediate_size=256), tmp_path / "model")
    given = ["run", "--model", directory, "--calibration", calibration_file, "--samples", 4, "--max-length", 16]
    given += ["--tasks", "none", "--evaluator", "footprint"]
    named = [part for name in ("block-influence", "angular", "random", "depth") for part in ("--scorer", name)]
    for amount in (["--count", 1], ["--count", 2], ["--target", "parameters=0.75"]):
        before, after = dry_run(*given, *named, *amount), made(layerimp_command, *given, *named, *amount)
        blocks, size = before["sizes"]["blocks"], before["sizes"]["parameters"]
        assert blocks["least"] < blocks["most"] or "--count" in amount
        assert size["least"] < size["most"]
        for label, scorer in after["scorers"].items():
            assert blocks["least"] <= 4 - len(scorer["removed"]) <= blocks["most"]
            assert size["least"] <= after["parameters"]["pruned"][label] <= size["most"]


def test_a_prune_does_what_it_says(layerimp_command: Run, dry_run: Any, model_dir: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    arguments = ["prune", "--model", model_dir, "--blocks", "0,2", "--output", output]
    before = dry_run(*arguments)
    assert not before["stages"]
    after = made(layerimp_command, *arguments)
    assert before["sizes"]["parameters"]["least"] == after["parameters"]["pruned"]["blocks"]
    plans = dry_run("prune", "--model", model_dir, "--plan", output / "plan.json", "--output", tmp_path / "again")
    assert plans["sizes"] == before["sizes"]
    assert plans["sizes"]["blocks"] == {"original": 4, "least": 2, "most": 2}


@pytest.mark.parametrize(("offloading", "width"), [("--no-offload", 2), ("--offload", 4)])
def test_the_dtype_of_checkpoints_is_said(
    layerimp_command: Run, dry_run: Any, scoring: list[object], tmp_path: Path, offloading: str, width: int
) -> None:
    """A narrower dtype to compute in is that of checkpoints, but for those whose tensors are copied from files."""
    whole = sum(parameter.numel() for parameter in tiny("llama").parameters())
    block = sum(parameter.numel() for parameter in layerimp.find_blocks(tiny("llama"))[0].parameters())
    arguments = ["prune", *scoring, "--dtype", "bfloat16", offloading, "--target", f"bytes={width * (whole - block)}"]
    before = dry_run(*arguments, "--output", tmp_path / "out")
    after = made(layerimp_command, *arguments, "--output", tmp_path / "out")
    assert before["sizes"]["blocks"] == {"original": 4, "least": 3, "most": 3}
    assert before["sizes"]["bytes"]["original"] == after["bytes"]["original"] == width * whole
    assert set(after["bytes"]["pruned"].values()) == {before["sizes"]["bytes"]["most"]}


def stages(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The stages by name."""
    return {stage["name"]: stage for stage in document["stages"]}


def parameters() -> tuple[int, int]:
    """The parameters of all blocks of the model, and of its head."""
    stack = layerimp.find_blocks(tiny("llama"))
    head = sum(parameter.numel() for parameter in stack.model.lm_head.parameters())
    return sum(parameter.numel() for block in stack for parameter in block.parameters()), head


@pytest.mark.parametrize(("pruner", "times"), [("lowest", 0), ("window", 0), ("greedy", 2)])
def test_the_pruner_is_asked_how_often_it_scores_again(
    layerimp_command: Run,
    dry_run: Any,
    scoring: list[object],
    monkeypatch: pytest.MonkeyPatch,
    pruner: str,
    times: int,
) -> None:
    arguments = ["run", *scoring, "--tasks", "none", "--pruner", pruner, "--count", 3]
    again = stages(dry_run(*arguments)).get("score again by block-influence")
    assert (0 if again is None else again["tokens"]) == times * 8 * 16  # passes of 8 rows of 16 tokens
    measured: list[object] = []
    monkeypatch.setattr(scores, "measure", lambda *args, **more: (measured.append(1), measure(*args, **more))[1])
    made(layerimp_command, *arguments)
    assert len(measured) == times


def test_passes_are_shared_as_in_the_run_and_their_work_is_two_operations_for_each_parameter_and_token(
    dry_run: Any, scoring: list[object]
) -> None:
    more = ["--scorer", "avss", "--scorer", "perplexity", "--scorer", "random"]
    found = stages(dry_run("run", *scoring, *more, "--tasks", "none", "--evaluator", "footprint"))
    assert list(found) == ["score by block-influence, avss", "score by perplexity"]
    (blocks, head), tokens = parameters(), 8 * 16
    forward, ablation = found.values()
    assert (forward["tokens"], forward["operations"]) == (tokens, 2 * blocks * tokens)
    passes = 1 + 4 / 2  # the intact model, and for each of 4 blocks on average half of it
    assert (ablation["tokens"], ablation["operations"]) == (passes * tokens, 2 * (blocks + head) * passes * tokens)


def test_sweeps_say_how_many_passes_they_take() -> None:
    assert Forward().passes(7, 8) == 1
    assert Backward().passes(7, 8) == 2
    assert Backward(parameters=True).passes(7, 8) == 3
    assert Ablation(frozenset({0.0, 0.5, 1.0})).passes(6, 8) == 7
    assert Ablation(frozenset({0.0, "mean"})).passes(6, 8) == 8


def test_a_time_is_the_work_over_the_speed_of_a_product(
    dry_run: Any, scoring: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Workload, "speed", 1e6)
    for stage in dry_run("run", *scoring, "--tasks", "none", "--heal", "linear")["stages"]:
        assert stage["seconds"] == pytest.approx(stage["operations"] / 1e6)


def test_the_speed_is_measured_with_a_matrix_of_the_model(dry_run: Any, scoring: list[object]) -> None:
    (stage,) = dry_run("run", *scoring, "--tasks", "none", "--evaluator", "footprint")["stages"]
    assert 1e6 < stage["operations"] / stage["seconds"] < 1e15


def test_tasks_are_counted_for_every_model(dry_run: Any, scoring: list[object], task: Path) -> None:
    """What a model reads; for the intact model, each scorer, baseline and healer."""
    asked = ["run", *scoring, "--tasks", task, "--limit", 4]
    stage = stages(dry_run(*asked, "--count", 2))["evaluate by harness"]
    harness = layerimp_harness.Harness
    reading = harness(harness.Config(tasks=(str(task),), limit=4)).reading(tiny("llama"), tiny_tokenizer(), 8, 16)
    assert reading is not None
    (blocks, head), models = parameters(), 1 + 3  # intact, block-influence, random and depth
    assert (stage["documents"], stage["tokens"], stage["times"]) == (reading.documents, reading.tokens, models)
    assert stage["operations"] == models * 2 * (blocks * reading.tokens + head * reading.predicted)
    healed = stages(dry_run(*asked, "--count", 2, "--heal", "linear"))["evaluate by harness"]
    assert healed["times"] == 1 + 3 * 2
    searched = stages(dry_run(*asked, "--keep", "0.9"))["evaluate by harness"]
    assert (searched["times"], searched["operations"]) == (None, stage["operations"] / models)


def test_fidelity_is_counted_for_every_model(dry_run: Any, scoring: list[object], tmp_path: Path) -> None:
    """Two texts of 12 rows of 16 tokens, and 24 prompts of 32 tokens that 64 are added to."""
    asked = ["run", *scoring, "--tasks", "none", "--count", 2]
    full = stages(dry_run(*asked, "--evaluator", "fidelity"))["compare by fidelity"]
    assert (full["documents"], full["tokens"], full["times"]) == (12, 2 * 12 * 16 + 24 * (32 + 64), 2)
    brief = stages(dry_run(*asked))["compare by fidelity"]
    assert (brief["documents"], brief["tokens"]) == (2, 2 * 16 + 2 * (32 + 32))
    assert not stages(dry_run("prune", *scoring, "--count", 2, "--output", tmp_path / "out")).keys() & {"compare"}


def test_healing_is_counted_within_its_limits(dry_run: Any, scoring: list[object]) -> None:
    def healing(**limits: object) -> dict[str, Any]:
        named = {"steps": "null", "first": "null", "learns": "beside"} | limits
        options = [part for name, value in named.items() for part in ("--set", f"distill.{name}={value}")]
        asked = ["run", *scoring, "--tasks", "none", "--no-baselines", "--count", 2, "--heal", "distill"]
        return stages(dry_run(*asked, *options))["heal by distill"]

    steps, tokens = healing(steps=200), healing(tokens=200 * 4 * 16)
    assert steps["tokens"] == tokens["tokens"] >= 3 * 200 * 4 * 16  # forward, and back
    assert healing(steps=400)["tokens"] > 1.8 * steps["tokens"]
    assert healing(minutes=0.001, steps=1_000_000)["seconds"] == pytest.approx(0.06)


def test_no_removal_has_more_gaps() -> None:
    """Each removal of so many blocks is tried."""
    for count in range(1, 5):
        gaps = [len(list(runs_of(removed))) for removed in combinations(range(5), count)]
        assert most_gaps([count], 5) == max(gaps)
    assert most_gaps([1, 3, 5], 5) == 3


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--count", 4], "leaves no model"),
        (["--target", "parameters=0.01"], "no removal reaches parameters=0.01"),
        (["--target", "parameters=3B"], "nothing has to go"),
        (["--calibration", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--max-length", 100_000], "max_length 100000 is beyond the model's"),
        (["--pruner", "nobody"], "unknown pruner 'nobody'"),
        (["--blocks", "7", "--count", 2], "block 7 does not exist"),
        (["--pruner", "greedy", "--set", "greedy.protect_last=3", "--count", 2], "only 1 of 4 are not protected"),
        (["--scorer", "perplexity", "--offload"], "'perplexity' cannot score an offloaded model"),
    ],
)
def test_what_is_wrong_shows_before_anything_is_loaded(
    layerimp_command: Run, scoring: list[object], more: list[object], message: str
) -> None:
    code, out, err = layerimp_command("run", "--tasks", "none", *changed(scoring, *more), "--dry-run")
    assert (code, out) == (2, "")
    assert message in err.splitlines()[-1]


def test_an_output_that_exists_and_a_block_that_cannot_go_are_refused(
    layerimp_command: Run, model_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    arguments = ["prune", "--blocks", "1", "--dry-run", "--output"]
    err = layerimp_command.refused(*arguments, tmp_path / "out", "--model", model_dir)
    assert "exists" in err
    tiny("modernbert").save_pretrained(tmp_path / "modernbert")
    err = layerimp_command.refused(
        "prune", "--blocks", 0, "--dry-run", "--output", tmp_path / "new", "--model", tmp_path / "modernbert"
    )
    assert "block 0 cannot be removed" in err
    assert not (tmp_path / "new").exists()


def test_a_quality_is_not_known_before(dry_run: Any, scoring: list[object], task: Path) -> None:
    """The number of removed blocks may be anything from 0 to all that are not protected."""
    work = dry_run("run", *scoring, "--tasks", task, "--keep", "0.9", "--protect", "0")
    assert work["sizes"]["blocks"] == {"original": 4, "least": 1, "most": 4}
    size = work["sizes"]["parameters"]
    assert size["most"] == size["original"] > size["least"]


def test_a_search_that_cannot_plan_the_most_has_a_dry_run(dry_run: Any, scoring: list[object]) -> None:
    """A window cannot take 3 of 4 blocks around a protected one, but the search tries shorter ones."""
    asked = ["run", *scoring, "--tasks", "none", "--pruner", "window", "--protect", "1"]
    assert dry_run(*asked, "--keep", "0.9")["sizes"]["blocks"]["least"] == 1


def test_a_run_that_names_all_blocks_scores_none(dry_run: Any, scoring: list[object], task: Path) -> None:
    """Baselines would remove the same blocks."""
    work = dry_run("run", *scoring[:-2], "--tasks", task, "--blocks", "1", "--evaluator", "harness")
    assert [(stage["name"], stage["times"]) for stage in work["stages"]] == [
        ("heal by linear", 1),
        ("evaluate by harness", 3),
    ]


def test_what_a_reader_sees(layerimp_command: Run, scoring: list[object], task: Path, tmp_path: Path) -> None:
    arguments = ["run", *scoring, "--tasks", task, "--count", 2, "--heal", "linear", "--pruner", "greedy"]
    out, _ = layerimp_command.done(*arguments, "--output", tmp_path / "out", "--dry-run")
    whole = sum(parameter.numel() for parameter in tiny("llama").parameters())
    block = sum(parameter.numel() for parameter in layerimp.find_blocks(tiny("llama"))[0].parameters())
    assert re.search(r"blocks +4 +2 +50\.0%", out)
    assert f"{whole:,}" in out
    assert f"{whole - 2 * block:,}" in out
    for line in ("score by block-influence", "score again by", "heal by linear", "evaluate by harness", "compare by"):
        assert line in out
    assert f"output: {tmp_path / 'out'}" in out.replace("\n", "")

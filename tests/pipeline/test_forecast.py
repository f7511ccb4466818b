"""`--dry-run` predicts what the command then does, and neither loads nor writes anything."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path
from typing import Any

import layerimp_closedform
import layerimp_harness
import pytest
import torch
from support.by_label import by_label
from support.mood import Run, changed
from support.published import checked
from support.recipes import make_recipe
from support.tiny import classifier, saved, tiny
from transformers import PreTrainedModel

import layerimp
from layerimp.pipeline import durations, forecast_parts, scores
from layerimp.pipeline.durations import block_seconds
from layerimp.pipeline.forecast_parts import most_gaps
from layerimp.pipeline.outline import Outline
from layerimp.scoring.engine import measure
from layerimp.steps import Cuts, candidates, removed_by, runs_of
from layerimp.sweep import Ablation, Backward, Forward, Sweep, Work
from layerimp.testing import tiny_tokenizer


@pytest.fixture
def scoring(scoring: list[object]) -> list[object]:
    return [*scoring, "--scorer", "block-influence"]


@pytest.fixture
def foretold(layerimp_command: Run, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Returns the document of a dry run, in which reading weights is an error."""

    def refuse(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("weights are read")

    def document(*args: object) -> dict[str, Any]:
        with monkeypatch.context() as patched:
            patched.setattr(PreTrainedModel, "from_pretrained", refuse)
            code, out, err = layerimp_command(*args, "--dry-run", "--json")
        assert code == 0, err
        return checked(out)

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
    ["--target", "kv-cache=0.5", "--blocks", "1/2", "--cuts", "all"],
    ["--count", 2, "--cuts", "all"],
]


@pytest.mark.parametrize("amount", AMOUNTS)
def test_a_run_does_what_was_foretold(
    layerimp_command: Run, foretold: Any, scoring: list[object], task: Path, tmp_path: Path, amount: list[object]
) -> None:
    output = tmp_path / "out"
    measured = ["--evaluator", "harness", "--evaluator", "footprint"]
    arguments = ["run", *scoring, "--tasks", task, *measured, *amount, "--output", output]
    before = foretold(*arguments)
    assert not output.exists()
    assert list(tmp_path.glob(".out*")) == []
    after = made(layerimp_command, *arguments)
    removed = {len(scorer["removed"]) for scorer in (after["scorers"] | after["baselines"]).values()}
    assert removed == {before["removed"]["least"]} == {before["removed"]["most"]}
    for name in ("parameters", "bytes"):
        assert before[name]["original"] == after[name]["original"]
        assert set(after[name]["pruned"].values()) == set(before[name]["pruned"].values())
    costs = after["footprint"]
    assert before["kv_bytes_per_token"]["original"] == costs["original"]["kv_bytes_per_token"]
    assert before["kv_bytes_per_token"]["pruned"]["most"] == costs["block-influence"]["kv_bytes_per_token"]
    assert before["tokens"] == after["calibration"]["tokens"]
    assert (before["scorers"], before["baselines"]) == (list(after["scorers"]), list(after["baselines"]))
    assert before["memory"]["weights"] == before["memory"]["verifying"] == 4 * before["parameters"]["original"]


@pytest.mark.slow
def test_sizes_of_plans_that_are_not_known_are_ranges(
    layerimp_command: Run, foretold: Any, calibration_file: Path, tmp_path: Path
) -> None:
    directory = saved(tiny("qwen3_moe", mlp_only_layers=[1, 3], intermediate_size=256), tmp_path / "model")
    given = ["run", "--model", directory, "--calibration", calibration_file, "--samples", 4, "--max-length", 16]
    given += ["--tasks", "none", "--evaluator", "footprint"]
    named = [part for name in ("block-influence", "angular", "random", "depth") for part in ("--scorer", name)]
    for amount in (["--count", 1], ["--count", 2], ["--target", "parameters=0.75"]):
        before, after = foretold(*given, *named, *amount), made(layerimp_command, *given, *named, *amount)
        assert before["removed"]["least"] < before["removed"]["most"] or "--count" in amount
        size = before["parameters"]["pruned"]
        assert size["least"] < size["most"]
        for label, scorer in after["scorers"].items():
            assert before["removed"]["least"] <= len(scorer["removed"]) <= before["removed"]["most"]
            assert size["least"] <= after["parameters"]["pruned"][label] <= size["most"]


def test_a_prune_does_what_was_foretold(layerimp_command: Run, foretold: Any, model_dir: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    arguments = ["prune", "--model", model_dir, "--blocks", "0,2/3", "--output", output]
    before = foretold(*arguments)
    assert not before["passes"]
    assert before["time"]["scoring_s"] is None
    after = made(layerimp_command, *arguments)
    assert before["parameters"]["pruned"]["least"] == after["parameters"]["pruned"]["blocks"]
    plans = foretold("prune", "--model", model_dir, "--plan", output / "plan.json", "--output", tmp_path / "again")
    assert plans["parameters"] == before["parameters"]
    assert plans["removed"] == {"least": 2, "most": 2}


@pytest.mark.parametrize(("offloading", "width"), [("--no-offload", 2), ("--offload", 4)])
def test_the_dtype_of_checkpoints_is_foretold(
    layerimp_command: Run, foretold: Any, scoring: list[object], tmp_path: Path, offloading: str, width: int
) -> None:
    """A narrower dtype to compute in is that of checkpoints, but for those whose tensors are copied from files."""
    whole = sum(parameter.numel() for parameter in tiny("llama").parameters())
    block = sum(parameter.numel() for parameter in layerimp.find_blocks(tiny("llama"))[0].parameters())
    arguments = ["prune", *scoring, "--dtype", "bfloat16", offloading, "--target", f"bytes={width * (whole - block)}"]
    before = foretold(*arguments, "--output", tmp_path / "out")
    after = made(layerimp_command, *arguments, "--output", tmp_path / "out")
    assert before["removed"] == {"least": 1, "most": 1}
    assert before["bytes"]["original"] == after["bytes"]["original"] == width * whole
    assert set(after["bytes"]["pruned"].values()) == set(before["bytes"]["pruned"].values())


@pytest.mark.parametrize(("pruner", "times"), [("lowest", 0), ("window", 0), ("greedy", 2)])
def test_the_pruner_is_asked_how_often_it_scores_again(
    layerimp_command: Run,
    foretold: Any,
    scoring: list[object],
    monkeypatch: pytest.MonkeyPatch,
    pruner: str,
    times: int,
) -> None:
    arguments = ["run", *scoring, "--tasks", "none", "--pruner", pruner, "--count", 3]
    assert foretold(*arguments)["rescorings"] == times
    measured: list[object] = []
    monkeypatch.setattr(scores, "measure", lambda *args, **more: (measured.append(1), measure(*args, **more))[1])
    made(layerimp_command, *arguments)
    assert len(measured) == times


def test_passes_are_shared_as_in_the_run(foretold: Any, scoring: list[object]) -> None:
    more = ["--scorer", "avss", "--scorer", "perplexity", "--scorer", "random"]
    passes = foretold("run", *scoring, *more, "--tasks", "none")["passes"]
    assert [(shared["sweep"], shared["scorers"]) for shared in passes] == [
        ("Forward", ["block-influence", "avss"]),
        ("Ablation", ["perplexity"]),
    ]
    assert [(shared["backbone"], shared["head"]) for shared in passes] == [(1, 0), (1 + 4 / 2, 1 + 4)]


def test_sweeps_say_what_they_compute() -> None:
    assert Forward().work(7, 8) == Work(1)
    assert Backward().work(7, 8) == Work(2, 2)
    assert Backward(parameters=True).work(7, 8) == Work(3, 2)
    assert Ablation(frozenset({0.0, 0.5, 1.0})).work(6, 8) == Work(7, 13)
    assert Ablation(frozenset({0.0, "mean"})).work(6, 8) == Work(8, 13)

    class Theirs(Sweep):
        def drive(self, *_args: Any) -> None: ...

    assert Theirs().work(7, 8) is None


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert", "mixtral", "gemma2"])
def test_one_block_of_each_kind_is_timed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny(name).save_pretrained(tmp_path)
    timed: list[tuple[int, ...]] = []

    def clock(run: Any) -> tuple[float, Any]:
        output = run()
        first = output if isinstance(output, torch.Tensor) else output[0]
        timed.append(tuple(first.shape))
        return 0.001 * len(timed), output

    monkeypatch.setattr(durations, "_timed", clock)
    outline = Outline.of(str(tmp_path))
    kinds = len(set(outline.alike))
    mean = sum(0.001 * (1 + sorted(set(outline.alike)).index(kind)) for kind in outline.alike) / len(outline.alike)
    assert block_seconds(outline, 2, 8) == pytest.approx(mean)
    assert timed == [(2, 8, 32)] * kinds


def test_an_estimate_adds_up_blocks_batches_and_passes(
    foretold: Any, scoring: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durations, "block_seconds", lambda *_args: 0.5)
    asked = ["run", *scoring, "--tasks", "none", "--batch-size", 3, "--evaluator", "footprint"]
    times = foretold(*asked, "--pruner", "greedy", "--count", 2)["time"]
    scoring_s = 0.5 * 4 * 3  # seconds a block, blocks, batches of 3 out of 8 rows; one pass
    nothing_else = {"healing_s": 0, "model_s": 0, "evaluation_s": 0, "fidelity_s": 0}
    assert times == {"block_ms": 500, "scoring_s": scoring_s, "rescoring_s": scoring_s} | nothing_else
    few = ["--pruner", "greedy", "--set", "greedy.rows=2", "--count", 2]  # of 8 rows
    times = foretold(*asked, *few)["time"]
    assert times == {"block_ms": 500, "scoring_s": scoring_s, "rescoring_s": scoring_s * 2 / 8} | nothing_else
    monkeypatch.setattr(durations, "block_seconds", lambda *_args: None)
    times = foretold("run", *scoring, "--tasks", "none")["time"]
    assert set(times.values()) == {None, 0}


TOKEN = 0.001
"""The seconds that a token takes in the four blocks of the model."""


@pytest.fixture
def _even(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every token takes equally long."""
    monkeypatch.setattr(durations, "block_seconds", lambda _outline, rows, tokens: TOKEN / 4 * rows * tokens)


def of_head() -> float:
    """The size of the head as a share of that of the blocks."""
    stack = layerimp.find_blocks(tiny("llama"))
    head = sum(parameter.numel() for parameter in stack.model.lm_head.parameters())
    return head / sum(parameter.numel() for block in stack for parameter in block.parameters())


@pytest.mark.parametrize("cuts", ["blocks", "all"])
def test_no_removal_has_more_gaps(cuts: Cuts) -> None:
    """Each removal of so many blocks, or of blocks and seams, is tried."""
    blocks, seams = candidates((), 5, cuts)
    for count in range(1, 5):
        removals = map(removed_by, combinations([*blocks, *seams], count))
        gaps = [len(list(runs_of(removed))) for removed in removals if len(removed) == 2 * count]
        assert most_gaps([count], 5, cuts) == max(gaps)
    assert most_gaps([1, 3, 5], 5, cuts) == 3


@pytest.mark.usefixtures("_even")
def test_what_learns_is_foretold_for_the_fewest_and_the_most_gaps(
    foretold: Any, scoring: list[object], model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One gap has room for copies of the two blocks beside it; two gaps have none for those of four."""
    weights = sum(value.nbytes for value in tiny("llama").parameters())
    monkeypatch.setattr(forecast_parts, "free_bytes", lambda _device: weights + 900_000)
    healing = ["--heal", "distill", "--set", "distill.width=1", "--set", "distill.rows=1"]
    unscored, scorer = scoring[:-2], scoring[-2:]
    asked = ["run", *unscored, "--tasks", "none", "--no-baselines", *healing]
    notes = foretold(*asked, *scorer, "--count", 2)["notes"]
    assert notes[0].startswith("distill: low-rank changes of the blocks beside the gaps learn, 1 rows a step: ")
    assert notes[1] == "distill: that is for 2 gaps, the most there may be; for 1, learns=beside"
    for blocks, learns in (("1,2", "the blocks"), ("0,2", "low-rank changes of the blocks")):
        notes = foretold(*asked, "--blocks", blocks)["notes"]
        assert notes[0].startswith(f"distill: {learns} beside the gaps learn, ")
        assert "for 1, learns" not in notes[1]


@pytest.mark.usefixtures("_even")
def test_tasks_are_estimated_for_every_model(foretold: Any, scoring: list[object], task: Path) -> None:
    """What a model reads, by the time of the blocks and the head; for the intact model, each scorer and healer."""
    asked = ["run", *scoring, "--tasks", task, "--limit", 4]
    times = foretold(*asked, "--count", 2)["time"]
    harness = layerimp_harness.Harness
    reading = harness(harness.Config(tasks=(str(task),), limit=4)).reading(tiny("llama"), tiny_tokenizer())
    assert reading is not None
    assert times["model_s"] == pytest.approx(TOKEN * (reading.tokens + of_head() * reading.predicted))
    models = 1 + 3  # intact, block-influence, random and depth
    assert times["evaluation_s"] == pytest.approx(models * times["model_s"])
    healed = foretold(*asked, "--count", 2, "--heal", "linear")["time"]
    assert healed["evaluation_s"] == pytest.approx((1 + 3 * 2) * times["model_s"])
    searched = foretold(*asked, "--keep", "0.9")["time"]
    assert (searched["model_s"], searched["evaluation_s"]) == (times["model_s"], None)
    agreeing = foretold(*asked, "--keep", "agreement=0.9")["time"]
    assert agreeing["evaluation_s"] == times["evaluation_s"], "the search measures no tasks"


@pytest.mark.usefixtures("_even")
def test_fidelity_is_estimated_for_every_model(foretold: Any, scoring: list[object], tmp_path: Path) -> None:
    """Two texts of 12 rows of 16 tokens, predicted by both models, and 24 prompts of 32 tokens that 64 are added to."""
    asked = ["run", *scoring, "--tasks", "none", "--count", 2]
    head = of_head()
    texts, read, written = 2 * 12 * 16 * (1 + 2 * head), 24 * (32 + head), 24 * 64 * (1 + head)
    models = 2  # the intact one, and that of block-influence
    assert foretold(*asked)["time"]["fidelity_s"] == pytest.approx(models * TOKEN * (texts + read + written))
    fewer = foretold(*asked, "--set", "fidelity.prompts=0", "--set", "fidelity.rows=2", "--heal", "linear")["time"]
    assert fewer["fidelity_s"] == pytest.approx((1 + 2) * TOKEN * texts / 6)
    assert foretold("prune", *scoring, "--count", 2, "--output", tmp_path / "out")["time"]["fidelity_s"] == 0


@pytest.mark.usefixtures("_even")
def test_healing_is_estimated_from_its_limits(
    foretold: Any, scoring: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def healing(*options: object, healer: str = "distill") -> float:
        asked = ["run", *scoring, "--tasks", "none", "--no-baselines", "--count", 2, "--heal", healer]
        seconds: float = foretold(*asked, *options)["time"]["healing_s"]
        return seconds

    def limited(**limits: object) -> list[object]:
        named = {"steps": "null", "first": "null", "learns": "beside"} | limits
        return [part for name, value in named.items() for part in ("--set", f"distill.{name}={value}")]

    judged = 2 * 32 * 16  # plain and repeated rows
    measuring = 3 * (16 + judged) * TOKEN * (1 + of_head())  # three models, whatever the healer
    tokens = 200 * 4 * 16
    steps = healing(*limited(steps=200))
    assert 3 * (1 + of_head()) < steps / (TOKEN * tokens) < 5 * (1 + of_head())  # teacher and student, and back
    assert healing(*limited(tokens=tokens)) == pytest.approx(steps)
    assert healing(*limited(minutes=0.1)) == pytest.approx(6 + measuring)
    assert healing(*limited(minutes=1000, steps=200)) == pytest.approx(steps)
    assert healing(*limited(steps=200), "--set", "distill.learns=all") > 1.1 * steps
    first = healing(*limited(steps=200), "--set", "distill.first=linear") - steps
    assert first == pytest.approx(healing(healer="linear") - measuring)
    both = healing(*limited(minutes=0.1), "--set", "distill.first=linear")
    assert both == pytest.approx(6 + healing(healer="linear")), "the minutes are those of the training alone"
    double = healing(*limited(steps=400))
    monkeypatch.setattr("layerimp_distill.room.ROWS", 8)  # on a GPU, and for a classifier, more are planned too
    assert healing(*limited(steps=200)) == pytest.approx(double)


@pytest.mark.parametrize(("name", "judged"), [("llama", 2 * 32 * 64), ("bert", 128 * 100)])
def test_the_distance_of_a_classifier_is_foretold_on_whole_rows(name: str, judged: int, tmp_path: Path) -> None:
    (tiny(name) if name == "llama" else classifier(name)).save_pretrained(tmp_path)
    recipe = make_recipe({"model": str(tmp_path), "count": 1})
    assert durations.Durations(Outline.of(str(tmp_path)), recipe, 100).scope(1).judged == judged


@pytest.mark.usefixtures("_even")
def test_a_classifier_trains_for_its_minutes(foretold: Any, calibration_file: Path, tmp_path: Path) -> None:
    """It has no head over a vocabulary, whose time would be added."""
    model = saved(classifier("bert"), tmp_path / "model")
    text = ("--calibration", calibration_file, "--packing", "rows", "--max-length", 16)
    seconds = foretold("shrink", model, *text, "--tasks", "none", "--minutes", 5)["time"]["healing_s"]
    assert 300 < seconds < 360


def test_what_a_component_does_not_say_is_not_known(
    layerimp_command: Run, scoring: list[object], task: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layerimp_harness.Harness, "reading", layerimp.Evaluator.reading)
    monkeypatch.setattr(layerimp_closedform.Linear, "effort", layerimp.Healer.effort)
    out, _ = layerimp_command.done("run", *scoring, "--tasks", task, "--count", 2, "--heal", "linear", "--dry-run")
    assert "healing not known, evaluation not known" in out


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
        (["--scorer", "avss", "--cuts", "all"], "scorer 'avss' cannot score seams"),
    ],
)
def test_what_is_wrong_shows_before_anything_is_loaded(
    layerimp_command: Run, scoring: list[object], more: list[object], message: str
) -> None:
    code, out, err = layerimp_command("run", "--tasks", "none", *changed(scoring, *more), "--dry-run")
    assert (code, out) == (2, "")
    assert message in err.splitlines()[-1]


def test_an_output_that_exists_and_a_seam_that_is_none_are_refused(
    layerimp_command: Run, model_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    arguments = ["prune", "--blocks", "1/2", "--dry-run", "--output"]
    err = layerimp_command.refused(*arguments, tmp_path / "out", "--model", model_dir)
    assert "exists" in err
    tiny("phi").save_pretrained(tmp_path / "phi")
    err = layerimp_command.refused(*arguments, tmp_path / "new", "--model", tmp_path / "phi")
    assert "seam 1/2 cannot be removed: block 1 cannot be divided into attention and MLP" in err
    tiny("modernbert").save_pretrained(tmp_path / "modernbert")
    err = layerimp_command.refused(
        "prune", "--blocks", 0, "--dry-run", "--output", tmp_path / "new", "--model", tmp_path / "modernbert"
    )
    assert "block 0 cannot be removed" in err
    assert not (tmp_path / "new").exists()


def test_a_quality_is_not_foretold(foretold: Any, scoring: list[object], task: Path) -> None:
    """The number of removed blocks may be anything from 0 to all that are not protected."""
    forecast = foretold("run", *scoring, "--tasks", task, "--keep", "0.9", "--protect", "0")
    assert forecast["removed"] == {"least": 0, "most": 3}
    size = forecast["parameters"]
    assert size["pruned"]["most"] == size["original"] > size["pruned"]["least"]
    assert forecast["baselines"] == ["random", "depth"]
    assert foretold("run", *scoring, "--tasks", "none", "--keep", "0.9")["baselines"] == ["random", "depth"]
    assert "how many blocks may go is found by measuring pruned models, and not known before" in forecast["notes"]


def test_a_search_that_cannot_plan_the_most_is_foretold(foretold: Any, scoring: list[object]) -> None:
    """A window cannot take 3 of 4 blocks around a protected one, but the search tries shorter ones."""
    asked = ["run", *scoring, "--tasks", "none", "--pruner", "window", "--protect", "1"]
    assert foretold(*asked, "--keep", "0.9")["removed"]["most"] == 3


def test_a_run_that_names_all_blocks_scores_none(foretold: Any, scoring: list[object], task: Path) -> None:
    """Baselines would remove the same blocks."""
    forecast = foretold("run", *scoring[:-2], "--tasks", task, "--blocks", "1")
    assert not any(forecast[name] for name in ("baselines", "scorers", "passes", "rescorings"))
    assert forecast["time"]["evaluation_s"] > 0
    assert foretold("run", *scoring, "--tasks", task, "--blocks", "1", "--count", 2)["baselines"] == ["random", "depth"]


def test_what_a_reader_sees(layerimp_command: Run, scoring: list[object], task: Path, tmp_path: Path) -> None:
    arguments = ["run", *scoring, "--tasks", task, "--count", 2, "--heal", "linear", "--pruner", "greedy"]
    out, _ = layerimp_command.done(*arguments, "--output", tmp_path / "out", "--dry-run")
    whole = sum(parameter.numel() for parameter in tiny("llama").parameters())
    block = sum(parameter.numel() for parameter in layerimp.find_blocks(tiny("llama"))[0].parameters())
    assert re.search(r"2 of 4 blocks \(50\.0%\) and \d+\.\d% of the parameters would be removed", " ".join(out.split()))
    assert f"{whole:,}" in out
    assert f"{whole - 2 * block:,}" in out
    assert "pass Forward for block-influence: as much as 1 forward pass of the blocks" in out
    assert "the pruner scores the pruned model again, 3 times at most" in out
    assert "each healed by linear as well" in out
    times = next(line for line in out.splitlines() if line.startswith("time, an estimate: "))
    stages = [part.split()[0] for part in times.partition(": ")[2].split(", ")]
    assert stages == ["scoring", "scoring", "healing", "evaluation", "fidelity"]

"""`run`, `prune` and `evaluate`: input by a user, and the output."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import layerimp_harness
import pytest
from layerimp_baselines import Depth
from safetensors.torch import load_file
from support.by_label import by_label
from support.fake_plugins import Install, Plug
from support.mood import Run, changed
from support.sst2 import write_sst2
from support.tiny import saved, tiny

from layerimp.registry.loader import DISABLE_VARIABLE
from layerimp.report.results.measures import Measured
from layerimp.testing import BLOCKS


def test_tasks_that_are_named_and_do_not_fit_are_refused(layerimp_command: Run, tmp_path: Path) -> None:
    """An evaluator that comes by default is left out only if its tasks do as well."""
    saved(tiny("bert"), tmp_path)
    code, out, err = layerimp_command("evaluate", "--model", tmp_path, "--tasks", "starter_stories")
    assert (code, out) == (2, "")
    why = "task 'starter_stories' is no multiple choice, and a classifier answers nothing else"
    assert err.splitlines()[-1] == f"layerimp: {why}"
    code, _, err = layerimp_command("evaluate", "--model", tmp_path)
    assert (code, f"note: harness is left out: {why}" in err) == (0, True), err


def test_a_whole_run(layerimp_command: Run, scoring: list[object], task: Path, tmp_path: Path) -> None:
    out_dir = tmp_path / "out"
    out, err = layerimp_command.done(
        "run", *scoring, "--scorer", "avss", "--tasks", task, "--ratio", 0.25, "--output", out_dir
    )
    for stage in ("load", "read", "score avss", "original: evaluate", "avss: evaluate", "random: evaluate", "save"):
        assert stage in err
    for words in (
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
        assert words in " ".join(out.split()), words
    assert {path.name for path in out_dir.iterdir()} == {
        "recipe.json",
        "plan.json",
        "results.json",
        "report.html",
        "checkpoints",
    }
    assert layerimp_command("report", out_dir)[1] == out, "what a run showed can be shown again"
    page = (out_dir / "report.html").read_text()
    downloads = [base64.b64decode(encoded).decode() for encoded in re.findall(r'base64,([^"]*)"', page)]
    assert by_label(downloads[1])["scorers"]["avss"]["checkpoint"] == "checkpoints/avss"
    assert not any(str(tmp_path.parent) in text for text in (page, *downloads))
    assert f"report: {out_dir / 'report.html'}" in out.replace("\n", "")
    for name in ("recipe", "plan", "results"):
        assert json.loads((out_dir / f"{name}.json").read_text())["schema_version"].startswith("layerimp.")
    lines = [line.strip() for line in out.splitlines() if "import AutoModel" in line or ".from_pretrained(" in line]
    scope: dict[str, Any] = {}
    exec("\n".join(lines), scope)
    assert scope["model"].config.num_hidden_layers == BLOCKS - 1
    card = (out_dir / "checkpoints" / "avss" / "README.md").read_text()
    assert "**Blocks removed:**" in card
    assert re.search(r"^\| mood †? ?\| acc \|", card, re.MULTILINE)


def test_labels_and_places_that_look_like_something_else(
    layerimp_command: Run,
    model_dir: Path,
    scoring: list[object],
    task: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A scorer may have the name of a column, and a model may be where the user stands."""
    monkeypatch.chdir(model_dir)
    arguments = ("--model", ".", *scoring[2:], "--scorer", "metric=avss", "--tasks", task, "--output", tmp_path / "out")
    layerimp_command.done("run", *arguments)
    page = (tmp_path / "out" / "report.html").read_text()
    assert ">tiny-llama</h2>" in page
    assert re.search(r'<th scope="col"[^>]*>metric</th>', page)


def test_a_run_as_json(layerimp_command: Run, scoring: list[object], task: Path, tmp_path: Path) -> None:
    arguments = [
        "run",
        *scoring,
        "--scorer",
        "avss",
        "--scorer",
        "paper=avss",
        "--set",
        "paper.variant=paper",
    ]
    out, _ = layerimp_command.done(*arguments, "--tasks", task, "--output", tmp_path / "out", "--json")
    results = by_label(out)
    assert results["num_blocks"] == BLOCKS
    assert set(results["scorers"]) == {"avss", "paper"}
    for label, scorer in results["scorers"].items():
        assert len(scorer["scores"]) == BLOCKS
        assert all(len(column) == BLOCKS for column in scorer["columns"].values())
        lowest = min(range(BLOCKS), key=lambda block: (scorer["scores"][block], -block))
        assert scorer["removed"] == [lowest]
        weights = load_file(Path(scorer["checkpoint"]) / "model.safetensors")
        assert results["parameters"]["pruned"][label] == sum(w.numel() for w in weights.values())
        before, after = (results["metrics"][key]["mood"]["acc"] for key in ("original", label))
        assert before.keys() == set(Measured.model_fields)
        assert before["flips"] is None
        assert after["flips"]["to_right"] - after["flips"]["to_wrong"] == pytest.approx(
            (after["value"] - before["value"]) * after["documents"]
        )
        assert results["retained"][label]["mood"] is None  # at chance, as a random model is
        assert results["retained_worst"][label] is None
        assert results["footprint"][label]["parameters"] == results["parameters"]["pruned"][label]
    assert results["output"] == str(tmp_path / "out")


def test_baselines_keep_a_measured_run_company(
    layerimp_command: Run, scoring: list[object], task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[int] = []
    real = layerimp_harness.Harness.evaluate
    monkeypatch.setattr(layerimp_harness.Harness, "evaluate", lambda *a: (measured.append(1), real(*a))[1])
    arguments = [
        "run",
        *scoring,
        "--tasks",
        task,
        "--scorer",
        "avss",
        "--scorer",
        "block-influence",
        "--evaluator",
        "harness",
        "--evaluator",
        "footprint",
        "--json",
    ]
    out, err = layerimp_command.done(*arguments, "--output", tmp_path / "out")
    assert "note: evaluated as well: random, depth (--no-baselines leaves them out)" in err
    results = by_label(out)
    labels = {"avss", "block-influence", "random", "depth"}
    assert set(results["scorers"]) == {"avss", "block-influence"}
    assert {label: baseline["checkpoint"] for label, baseline in results["baselines"].items()} == {
        "random": None,
        "depth": None,
    }
    assert set(results["metrics"]) == set(results["footprint"]) == labels | {"original"}
    assert set(results["order"]) == set(results["parameters"]["pruned"]) == labels
    assert {path.name for path in (tmp_path / "out" / "checkpoints").iterdir()} == {"avss", "block-influence"}
    # Scorers that remove the same blocks share one evaluation.
    parts = results["scorers"] | results["baselines"]
    assert len(measured) == 1 + len({frozenset(scorer["removed"]) for scorer in parts.values()})
    recipe = json.loads((tmp_path / "out" / "recipe.json").read_text())
    assert list(recipe["baselines"]) == ["random", "depth"]
    out, err = layerimp_command.done(*arguments, "--no-baselines")
    assert "evaluated as well" not in err
    assert set(by_label(out)["order"]) == {"avss", "block-influence"}
    out, _ = layerimp_command.done("run", "--tasks", "none", *scoring, "--scorer", "avss", "--json")
    # There are no measurements by which they could be compared.
    assert not {"baselines", "best", "retained"} & by_label(out).keys()
    out, _ = layerimp_command.done(*arguments, "--scorer", "depth")
    assert set(by_label(out)["baselines"]) == {"random"}


def test_baselines_that_cannot_be_are_left_out_or_named(
    layerimp_command: Run,
    scoring: list[object],
    task: Path,
    tmp_path: Path,
    plugged: Plug,
    install: Install,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "r.yaml").write_text("baselines: [rand]")
    code, _, err = layerimp_command("run", *scoring, "--tasks", task, "--recipe", tmp_path / "r.yaml")
    assert (code, "unknown scorer 'rand'. Did you mean 'random'" in err) == (2, True)
    monkeypatch.setenv(DISABLE_VARIABLE, "baselines")
    plugged(install("depth", layerimp_scorers=lambda: [Depth]), install("random", "raise ImportError('broken')"))
    out, err = layerimp_command.done("run", *scoring, "--tasks", task, "--json")
    assert "note: the scorer random is left out: scorer 'random': its plugin" in err
    assert set(by_label(out)["baselines"]) == {"depth"}
    assert "ImportError: broken" in by_label(out)["left_out"]["random"]


def test_labels_reach_a_classifier(layerimp_command: Run, tmp_path: Path) -> None:
    saved(tiny("bert", id2label={0: "bad", 1: "good"}, label2id={"bad": 0, "good": 1}), tmp_path / "bert")
    (tmp_path / "t.jsonl").write_text('{"text": "a good film", "y": "good"}\n{"text": "a bad film", "y": "bad"}\n')
    arguments = ["score", "--model", tmp_path / "bert", "--calibration", tmp_path / "t.jsonl", "--samples", 2, "--json"]
    out, _ = layerimp_command.done(*arguments, "--packing", "rows", "--label-field", "y")
    assert by_label(out)["calibration"]["labels"] == {"0": 1, "1": 1}
    (tmp_path / "t.jsonl").write_text('{"text": "a good film", "y": "great"}\n')
    err = layerimp_command.refused(*arguments, "--packing", "rows", "--label-field", "y")
    assert "'y' holds 'great', which is no label of the model; it knows: bad (0), good (1)" in err.splitlines()[-1]


def test_a_task_brings_its_labels_to_a_classifier(layerimp_command: Run, tmp_path: Path) -> None:
    saved(tiny("distilbert", num_labels=2), tmp_path / "model")
    write_sst2(tmp_path, ["a good film"] * 6, ["a good film"] * 6)
    arguments = ["--model", tmp_path / "model", "--calibration", "task:layerimp_sst2", "--data-dir", tmp_path]
    out, _ = layerimp_command.done("score", *arguments, "--samples", 6, "--max-length", 16, "--json")
    assert by_label(out)["calibration"]["labels"] == {"0": 3, "1": 3}
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
    assert by_label(first)["metrics"] == by_label(again)["metrics"]
    assert len(calls) == 1
    layerimp_command(*arguments, "--limit", 3)
    (task.parent / "docs.jsonl").write_text((task.parent / "docs.jsonl").read_text().replace("cat", "dog"))
    layerimp_command(*arguments)
    assert len(calls) == 3


def test_evaluators_keep_apart_under_labels(layerimp_command: Run, model_dir: Path, task: Path) -> None:
    arguments = ["--evaluator", "harness", "--evaluator", "few=harness", "--set", "few.num_fewshot=2"]
    out, _ = layerimp_command.done("evaluate", "--model", model_dir, "--tasks", task, *arguments, "--json")
    assert set(by_label(out)["metrics"]["original"]) == {"mood", "mood (few)"}


def test_a_recipe_makes_the_same_run(layerimp_command: Run, scoring: list[object], tmp_path: Path) -> None:
    asked = ["--tasks", "none", "--evaluator", "footprint", "--protect", 0]
    first = layerimp_command("run", *scoring, *asked, "--output", tmp_path / "a", "--json")
    assert first[0] == 0, first[2]
    again = layerimp_command("run", "--recipe", tmp_path / "a" / "recipe.json", "--output", tmp_path / "b", "--json")
    assert again[0] == 0, again[2]
    assert (
        by_label(first[1])["scorers"]["divergence"]["scores"] == by_label(again[1])["scorers"]["divergence"]["scores"]
    )


def test_a_run_by_count(layerimp_command: Run, scoring: list[object], tmp_path: Path) -> None:
    arguments = ["run", *scoring, "--scorer", "avss", "--blocks", 2, "--protect", 0, "--json"]
    arguments += ["--tasks", "none", "--evaluator", "footprint"]
    out, _ = layerimp_command.done(*arguments, "--count", 2, "--output", tmp_path / "count")
    removed = by_label(out)["scorers"]["avss"]["removed"]
    assert removed == by_label(layerimp_command(*arguments, "--ratio", 0.5)[1])["scorers"]["avss"]["removed"]
    assert (removed[0], len(removed), 0 in removed) == (2, 2, False)
    recipe = tmp_path / "count" / "recipe.json"
    assert {name: json.loads(recipe.read_text())[name] for name in ("count", "ratio")} == {"count": 2, "ratio": None}
    out, _ = layerimp_command.done("run", "--recipe", recipe, "--json", "--output", tmp_path / "again")
    assert by_label(out)["scorers"]["avss"]["removed"] == removed
    layerimp_command.done("run", "--recipe", recipe, "--ratio", 0.25, "--output", tmp_path / "ratio")
    written = json.loads((tmp_path / "ratio" / "recipe.json").read_text())
    assert (written["count"], written["ratio"]) == (None, 0.25)


def test_names_from_outside_are_shown_as_they_are(
    layerimp_command: Run, model_dir: Path, scoring: list[object], tmp_path: Path
) -> None:
    hostile = tmp_path / "[red]x|<b>"
    hostile.symlink_to(model_dir)
    out, err = layerimp_command.done(
        "run",
        "--tasks",
        "none",
        *changed(scoring, "--model", hostile),
        "--scorer",
        "fast",
        "--output",
        tmp_path / "[bold]out",
    )
    assert "[red]x|<b>" in err
    assert "[bold]out" in out
    card = (tmp_path / "[bold]out" / "checkpoints" / "block-influence" / "README.md").read_text()
    assert r"\[red\]x\|\<b\>" in card
    assert "<b>" not in re.sub(r"^```.*?^```$", "", card, flags=re.MULTILINE | re.DOTALL)


def test_there_is_no_page_of_what_removes_nothing(layerimp_command: Run, scoring: list[object], tmp_path: Path) -> None:
    layerimp_command.done("score", *scoring, "--output", tmp_path / "scores")
    err = layerimp_command.refused("report", tmp_path / "scores", "--format", "html")
    assert "nothing was removed in" in err
    assert "importance of 4 blocks" in layerimp_command.done("report", tmp_path / "scores")[0]
    assert not (tmp_path / "scores" / "report.html").exists()

"""A run that offloads its model: as in memory, but for what needs whole models, which is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.by_label import by_label
from support.mood import Run
from support.recipes import make_recipe
from support.tiny import saved, tiny

from layerimp.cli.display import Screen
from layerimp.errors import ModelError
from layerimp.pipeline import prepare
from layerimp.recipe import Permissions

SIZES = ("parameters", "bytes", "kv_bytes_per_token")


def arguments(model: Path, text: Path, *more: Any) -> list[Any]:
    shared = ["run", "--model", model, "--calibration", text, "--samples", 8, "--max-length", 16, "--count", 1]
    return [
        *shared,
        "--scorer",
        "block-influence",
        "--scorer",
        "avss",
        "--tasks",
        "none",
        "--evaluator",
        "footprint",
        "--json",
        *more,
    ]


@pytest.mark.parametrize("kind", ["llama", "bert", pytest.param("gemma3_text", marks=pytest.mark.slow)])
def test_the_report_is_that_of_a_run_in_memory(
    kind: str, layerimp_command: Run, calibration_file: Path, tmp_path: Path
) -> None:
    """Scores, plans, sizes and checkpoints are equal; the footprint has the sizes, and no times."""
    model = saved(tiny(kind), tmp_path / "model")
    runs = []
    for more in ([], ["--offload"]):
        output = tmp_path / f"out{len(runs)}"
        out, _ = layerimp_command.done(*arguments(model, calibration_file, *more, "--output", output))
        assert (output / "report.html").exists()
        weights = output / "checkpoints" / "avss" / "model.safetensors"
        runs.append((by_label(out.replace(output.name, "out")), weights.stat().st_size))
    (whole, size), (offloaded, offloaded_size) = runs
    assert size == offloaded_size
    for label, costs in offloaded["footprint"].items():
        assert costs == {name: whole["footprint"][label][name] for name in SIZES if name in whole["footprint"][label]}
        assert {"parameters", "bytes"} <= costs.keys()
    assert {name: value for name, value in offloaded.items() if name not in ("footprint", "recipe")} == {
        name: value for name, value in whole.items() if name not in ("footprint", "recipe")
    }


@pytest.mark.parametrize("named", [[], ["--blocks", "1"]], ids=["chosen", "named"])
def test_without_an_output_only_sizes_are_found(
    named: list[str], layerimp_command: Run, model_dir: Path, calibration_file: Path, tmp_path: Path
) -> None:
    before = set(tmp_path.rglob("*"))
    reports = []
    for more in ([], ["--offload"]):
        out, _ = layerimp_command.done(*arguments(model_dir, calibration_file, *named, *more))
        reports.append(by_label(out))
    assert reports[0]["parameters"] == reports[1]["parameters"]
    assert reports[0]["bytes"] == reports[1]["bytes"]
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("more", "who"),
    [
        (["--tasks", "starter_stories"], "the evaluator harness"),
        (["--scorer", "fast", "--heal", "linear"], "--heal"),
        (["--keep", "0.9", "--tasks", "starter_stories", "--evaluator", "harness"], "the evaluator harness"),
    ],
)
def test_what_needs_whole_models_is_refused(more: list[str], who: str, layerimp_command: Run, tmp_path: Path) -> None:
    output = tmp_path / "out"
    given = ["run", "--offload", "--samples", 4, "--max-length", 16, "--output", output]
    err = layerimp_command.refused(*given, *(["--tasks", "none"] if "--tasks" not in more else []), *more)
    assert err.splitlines()[-1] == (
        f"layerimp: {who} needs whole models in memory; an offloaded run takes --tasks none and no healer"
    )
    assert not output.exists()


def test_a_model_that_does_not_fit_is_offloaded_or_refused(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "free_bytes", lambda _device: 1000)
    recipe, screen = make_recipe({"model": str(model_dir)}), Screen()
    assert prepare.is_offloaded(recipe, Permissions(), screen)
    for needing, asked, remedy in (
        (["--heal"], {}, "--heal needs whole models"),
        ([], {"offload": False}, "--offload"),
    ):
        with pytest.raises(ModelError, match=f"the weights of .* take .* are free; {remedy}"):
            prepare.is_offloaded(recipe.model_copy(update=asked), Permissions(), screen, needing)


def test_a_model_on_the_hub_is_offloaded_by_its_configuration(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files may not be here yet."""
    monkeypatch.setattr(prepare, "read_headers", lambda _model: None)
    recipe, screen = make_recipe({"model": str(model_dir)}), Screen()
    needed = sum(part.nbytes for part in tiny("llama").parameters())
    for free, offloaded in ((needed - 1, True), (needed, False)):
        monkeypatch.setattr(prepare, "free_bytes", lambda _device, free=free: free)
        assert prepare.is_offloaded(recipe, Permissions(), screen) is offloaded


def test_a_dry_run_counts_what_is_in_memory_at_a_time(
    layerimp_command: Run, calibration_file: Path, tmp_path: Path
) -> None:
    """Of a model without tied weights: a block, the embedding and the last norm, and no head; both models are tried."""
    model = tiny("llama", tie_word_embeddings=False)
    directory = saved(model, tmp_path / "model")
    given = arguments(directory, calibration_file, "--dry-run", "--output", tmp_path / "out")
    out, _ = layerimp_command.done(*given, "--offload")
    parts = (model.model.layers[0], model.model.embed_tokens, model.model.norm)
    held = 4 * sum(parameter.numel() for part in parts for parameter in part.parameters())
    (work,) = json.loads(out)["models"].values()
    memory = work["memory"]
    assert (memory["offloaded"], memory["weights"], memory["verifying"]) == (True, held, held)
    out, _ = layerimp_command.done(*(argument for argument in given if argument != "--json"), "--offload")
    assert "of weights at a time (offloaded) in float32" in out
    out, _ = layerimp_command.done(*given)
    (work,) = json.loads(out)["models"].values()
    assert work["memory"]["offloaded"] is False


def test_a_prune_has_an_offloaded_dry_run_whatever_a_run_would_need(
    layerimp_command: Run, model_dir: Path, tmp_path: Path
) -> None:
    """A recipe that names healers and tasks offloads in `prune` of named blocks, which uses neither."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("offload: true\nhealers: [linear]\nblocks: [1]\n")
    given = ["prune", "--recipe", recipe, "--model", model_dir, "--output", tmp_path / "out", "--dry-run", "--json"]
    out, _ = layerimp_command.done(*given)
    (work,) = json.loads(out)["models"].values()
    assert work["memory"]["offloaded"] is True

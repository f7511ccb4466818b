"""Fidelity as cells of a grid: one for each pruned model, none for the intact one, and healed models stay together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.grids import Arithmetic, computed, drive, layout
from support.mood import mood

import layerimp
from layerimp.bench.cell_graph import Layout, Measure
from layerimp.bench.cells import Cell, Result
from layerimp.bench.results import grid_results
from layerimp.bench.store import Store
from layerimp.fidelity import Intact
from layerimp.recipe import validated

COMPARISON = Measure(evaluator="fidelity", task="fidelity", tag="1", optional=True)


def with_comparison(**changes: Any) -> Layout:
    plain = layout(**changes)
    models = {label: each.model_copy(update={"comparison": COMPARISON}) for label, each in plain.models.items()}
    return plain.model_copy(update={"models": models})


def cells(directory: Path, grid: Layout) -> dict[str, Cell]:
    """All cells of a grid that is computed to the end, except plannings."""
    executor = Arithmetic()
    drive(directory, executor, grid)
    return {cell.key: cell for cell in executor.cells}


def test_every_pruned_model_is_compared_and_other_cells_stay(tmp_path: Path) -> None:
    without = cells(tmp_path / "without", layout(healers=["linear"]))
    compared = cells(tmp_path / "compared", with_comparison(healers=["linear"]))
    assert without.keys() < compared.keys()
    added = [cell for key, cell in compared.items() if key not in without]
    assert {cell.content["evaluator"] for cell in added} == {"fidelity"}
    pruned = {
        (tuple(cell.content["blocks"]), cell.healer, cell.seed if cell.healer else 0)
        for cell in without.values()
        if cell.kind == "evaluation" and cell.content["blocks"]
    }
    assert {(tuple(cell.content["blocks"]), cell.healer, cell.seed if cell.healer else 0) for cell in added} == pruned


def test_other_text_makes_other_cells() -> None:
    grid, other = with_comparison(repeats=2), with_comparison(repeats=3)
    cell, same = (each.evaluation("one", (1,), COMPARISON) for each in (grid, grid))
    assert cell.key == same.key != other.evaluation("one", (1,), COMPARISON).key


def test_a_model_that_cannot_be_compared_is_named_once_in_the_notes(tmp_path: Path) -> None:
    def left_out(cell: Cell) -> Result:
        fails = cell.content.get("evaluator") == "fidelity"
        return {"left_out": "it predicts nothing"} if fails else computed(cell)

    grid, _ = drive(tmp_path, Arithmetic(what=left_out), with_comparison())
    with Store(tmp_path, write=False) as store:
        results = grid_results(grid, store.records())
    assert [note for note in results.notes if "fidelity" in note] == ["one: fidelity is left out: it predicts nothing"]
    assert {each.fidelity for removal in results.models["one"].removals for each in removal.models} == {None}


@pytest.fixture
def values(model_dir: Path, calibration_file: Path, tmp_path: Path) -> dict[str, Any]:
    return {
        "models": {"tiny": str(model_dir)},
        "scorers": ["avss"],
        "baselines": ["depth"],
        "counts": [1],
        "repeats": 2,
        "tasks": [str(mood(tmp_path))],
        "calibration": {"source": str(calibration_file), "samples": 4, "max_length": 16},
    }


def test_a_grid_measures_only_divergence_and_agreement_unless_asked(
    values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[int] = []
    original = Intact.__init__

    def noting(self: Any, stack: Any, batches: Any, **options: Any) -> None:
        batches = list(batches)
        runs.extend([1] * bool(batches))
        original(self, stack, batches, **options)

    monkeypatch.setattr(Intact, "__init__", noting)
    results = layerimp.run_grid(validated(layerimp.Grid, values), tmp_path / "out", device="cpu")
    (model,) = results.models.values()
    fidelities = [each.fidelity for removal in model.removals for each in removal.models]
    assert fidelities
    for fidelity in fidelities:
        assert fidelity is not None
        assert fidelity.divergence is not None
        assert fidelity.copying is None
        assert fidelity.missing == {"generation": "all documents are too short for a prompt"}
    assert len(runs) == 1  # the intact model: rows of 16 tokens are too short to be repeated


def test_a_comparer_that_fails_on_one_model_still_compares_the_next(
    values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    original = Intact.divergence

    def failing_once(self: Any, *inputs: Any, **options: Any) -> Any:
        calls.append(self)
        if len(calls) == 1:
            raise RuntimeError("only this once")
        return original(self, *inputs, **options)

    monkeypatch.setattr(Intact, "divergence", failing_once)
    grid = validated(layerimp.Grid, values | {"counts": [1, 2]})
    results = layerimp.run_grid(grid, tmp_path / "out", device="cpu")
    (failure,) = results.failures
    assert "only this once" in failure.error
    assert len(calls) > 2


def test_a_model_is_compared_alike_in_a_run_and_in_a_grid(values: dict[str, Any], tmp_path: Path) -> None:
    settings = values | {"repeats": 1, "scorers": ["depth"], "baselines": []}
    grid = layerimp.run_grid(validated(layerimp.Grid, settings), tmp_path / "out", device="cpu")
    shared = {name: settings[name] for name in ("scorers", "baselines", "tasks", "calibration")}
    run = layerimp.run(layerimp.Recipe.model_validate({"model": values["models"]["tiny"], "count": 1, **shared}))
    (here,), (there,) = grid.models.values(), run.models.values()
    fidelity, expected = (each.removals[0].models[0].fidelity for each in (here, there))
    assert fidelity is not None
    assert expected is not None
    assert fidelity.divergence == expected.divergence
    assert fidelity.agreement == expected.agreement

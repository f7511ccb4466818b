"""A worker computes what several cells have in common once."""

from __future__ import annotations

from pathlib import Path

import pytest
from layerimp_closedform import repaired
from support.grids import layout

from layerimp.bench.digests import FileDigests
from layerimp.bench.engine import Engine
from layerimp.bench.executors.base import Assignment
from layerimp.bench.executors.in_process import InProcess
from layerimp.bench.executors.worker import Worker
from layerimp.bench.grid import Grid
from layerimp.bench.resolve import resolve
from layerimp.progress import SILENT
from layerimp.recipe import Permissions, validated


def test_a_plan_goes_on_with_the_repairs_of_the_first_scoring(
    model_dir: Path, calibration_file: Path, task: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {
        "models": {"tiny": str(model_dir)},
        "scorers": ["divergence"],
        "baselines": [],
        "counts": [2],
        "pruners": ["greedy"],
        "repeats": 2,
        "tasks": [str(task)],
        "calibration": {"source": str(calibration_file), "samples": 4, "max_length": 16},
    }
    grid = resolve(validated(Grid, values), FileDigests({}), Engine(device="cpu"), Permissions(), SILENT)[0]
    made: list[None] = []

    class Counted(repaired._Known):
        def __init__(self, *args: object) -> None:
            super().__init__(*args)  # type: ignore[arg-type]
            made.append(None)  # not if one row is tried, which is too little

    monkeypatch.setattr(repaired, "_Known", Counted)
    worker = Worker("cpu")
    for draw in (0, 1):
        scoring = grid.scoring("tiny", "divergence", draw)
        (scores,) = worker.compute(Assignment((scoring,), grid, Permissions()))
        planning = grid.planning("tiny", "divergence", draw, "greedy", 0.5, 4)
        (plan,) = worker.compute(Assignment((planning,), grid, Permissions(), importance=scores.result))
        assert plan.result is not None, plan.error
        assert len(plan.result["blocks"]) == 2
        assert len(made) == draw + 1


def test_what_goes_wrong_is_an_outcome() -> None:
    nowhere = str(Path(__file__).with_name("nowhere"))
    made = layout(models={"one": nowhere})
    executor = InProcess("cpu")
    executor.start(Assignment((made.scoring("one", "avss", 0),), made, Permissions()))
    _, (outcome,) = executor.finished()
    assert outcome.result is None
    assert f"the model directory '{nowhere}' does not exist" in outcome.error

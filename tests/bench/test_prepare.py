"""A grid is prepared once, for a dry run as for computing it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.mood import mood

import layerimp.pipeline.prepare
from layerimp.bench import commands, digests, dry_run, resolve
from layerimp.bench.engine import Engine
from layerimp.bench.grid import Grid
from layerimp.bench.prepare import prepared_grid
from layerimp.pipeline.dry_run import ModelWork, dry_run_of
from layerimp.pipeline.prepare import prepare
from layerimp.progress import SILENT
from layerimp.recipe import Permissions, Recipe, validated


@pytest.fixture
def work_of(model_dir: Path, calibration_file: Path, tmp_path: Path) -> Callable[..., ModelWork]:
    """Returns the work of a grid of one model, whose store is in `out`."""
    values = {
        "models": {"tiny": str(model_dir)},
        "scorers": ["avss"],
        "baselines": [],
        "counts": [1],
        "repeats": 1,
        "tasks": [str(mood(tmp_path))],
        "calibration": {"source": str(calibration_file), "samples": 4, "max_length": 16},
    }

    def work(**changes: Any) -> ModelWork:
        grid, engine = validated(Grid, values | changes), Engine(device="cpu")
        if changes.get("repeats") == 2:
            commands.run_grid(grid, tmp_path / "out", device="cpu")
        prepared = prepared_grid(grid, tmp_path / "out", engine, Permissions(), SILENT)
        return dry_run.grid_dry_run_of(prepared).models["tiny"]

    return work


def test_nothing_is_prepared_twice(work_of: Callable[..., ModelWork], monkeypatch: pytest.MonkeyPatch) -> None:
    calls: Counter[str] = Counter()

    def counting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*given: Any, **options: Any) -> Any:
            calls[name] += 1
            return function(*given, **options)

        return counted

    monkeypatch.setattr(dry_run.Outline, "of", counting("outline", dry_run.Outline.of))
    for name in ("prepared", "prepared_for", "check_source"):
        monkeypatch.setattr(resolve, name, counting(name, getattr(resolve, name)))
    work_of()
    assert calls == {"outline": 1, "prepared": 1, "prepared_for": 2, "check_source": 1}  # a task and fidelity


def test_a_scorer_that_does_not_fit_has_no_pass(work_of: Callable[..., ModelWork]) -> None:
    """It fails in its cells, and the others are computed: so the dry run goes on as well."""
    scorers = {"avss": None, "far": {"name": "angular", "options": {"window": 9}}}
    work = work_of(scorers=scorers)
    assert (work.stages[0].name, work.stages[0].times) == ("score by avss", 1)


def test_a_model_with_text_of_its_own_is_counted_with_it(
    work_of: Callable[..., ModelWork], model_dir: Path, calibration_file: Path
) -> None:
    """The work of some passes depends on the number of rows."""
    own = {"source": str(calibration_file), "samples": 64, "max_length": 16}
    scorers = ["divergence"]
    passes = [
        work_of(scorers=scorers, **text).stages[0].tokens
        for text in ({"models": {"tiny": {"model": str(model_dir), "calibration": own}}}, {"calibration": own}, {})
    ]
    assert passes[0] == passes[1] != passes[2]


def test_a_dry_run_reads_no_file_whose_digest_is_stored(
    work_of: Callable[..., ModelWork], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert not (tmp_path / "out").exists()
    before = work_of()
    assert not (tmp_path / "out").exists()
    after = work_of(repeats=2)
    monkeypatch.setattr(digests.hashlib, "file_digest", None)
    fewer = work_of()  # whose text for fidelity is another
    assert [[stage.times for stage in work.stages[:2]] for work in (before, after, fewer)] == [[1, 2], [0, 0], [0, 1]]


def test_a_grid_is_never_offloaded(
    work_of: Callable[..., ModelWork], model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layerimp.pipeline.prepare, "free_bytes", lambda _device: 1000)
    run = Recipe.model_validate({"model": str(model_dir), "tasks": [], "scorers": ["depth"]})
    assert dry_run_of(prepare("run", run, Permissions(), SILENT)).models[str(model_dir)].memory.offloaded
    assert not work_of().memory.offloaded

"""A grid is prepared once, for a dry run as for computing it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.mood import mood

import layerimp.pipeline.prepare
from layerimp.bench import commands, digests, forecast, resolve
from layerimp.bench.engine import Engine
from layerimp.bench.forecast import CellForecast, GridForecast
from layerimp.bench.grid import Grid
from layerimp.bench.prepare import prepared_grid
from layerimp.pipeline.forecast import forecast_of
from layerimp.pipeline.prepare import prepare
from layerimp.progress import SILENT
from layerimp.recipe import Permissions, Recipe, validated


@pytest.fixture
def foretold(model_dir: Path, calibration_file: Path, tmp_path: Path) -> Callable[..., GridForecast]:
    """Returns the forecast of a grid of one model, whose store is in `out`."""
    values = {
        "models": {"tiny": str(model_dir)},
        "scorers": ["avss"],
        "baselines": [],
        "counts": [1],
        "repeats": 1,
        "tasks": [str(mood(tmp_path))],
        "calibration": {"source": str(calibration_file), "samples": 4, "max_length": 16},
    }

    def forecast_of(**changes: Any) -> GridForecast:
        grid, engine = validated(Grid, values | changes), Engine(device="cpu")
        if changes.get("repeats") == 2:
            commands.run_grid(grid, tmp_path / "out", device="cpu")
        return forecast.grid_forecast_of(prepared_grid(grid, tmp_path / "out", engine, Permissions(), SILENT))

    return forecast_of


def test_nothing_is_prepared_twice(foretold: Callable[..., GridForecast], monkeypatch: pytest.MonkeyPatch) -> None:
    calls: Counter[str] = Counter()

    def counting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*given: Any, **options: Any) -> Any:
            calls[name] += 1
            return function(*given, **options)

        return counted

    monkeypatch.setattr(forecast.Outline, "of", counting("outline", forecast.Outline.of))
    for name in ("prepared", "prepared_for", "check_source"):
        monkeypatch.setattr(resolve, name, counting(name, getattr(resolve, name)))
    foretold()
    assert calls == {"outline": 1, "prepared": 1, "prepared_for": 2, "check_source": 1}  # a task and fidelity


def test_a_scorer_that_does_not_fit_has_no_pass(foretold: Callable[..., GridForecast]) -> None:
    """It fails in its cells, and the others are computed: so the forecast goes on as well."""
    scorers = {"avss": None, "far": {"name": "angular", "options": {"window": 9}}}
    work = foretold(scorers=scorers).models["tiny"]
    assert [shared.scorers for shared in work.passes] == [["avss"]]
    assert work.cells["scoring"] == CellForecast(finished=0, most=2)


def test_a_model_with_text_of_its_own_is_forecast_with_it(
    foretold: Callable[..., GridForecast], model_dir: Path, calibration_file: Path
) -> None:
    """The work of some passes depends on the number of rows."""
    own = {"source": str(calibration_file), "samples": 64, "max_length": 16}
    scorers = ["divergence"]
    passes = [
        foretold(scorers=scorers, **text).models["tiny"].passes
        for text in ({"models": {"tiny": {"model": str(model_dir), "calibration": own}}}, {"calibration": own}, {})
    ]
    assert passes[0] == passes[1] != passes[2]


def test_a_dry_run_reads_no_file_whose_digest_is_stored(
    foretold: Callable[..., GridForecast], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert not (tmp_path / "out").exists()
    before = foretold().models["tiny"].cells
    assert not (tmp_path / "out").exists()
    after = foretold(repeats=2).models["tiny"].cells
    assert before["scoring"] == CellForecast(finished=0, most=1)
    assert after["scoring"] == CellForecast(finished=2, most=2)
    monkeypatch.setattr(digests.hashlib, "file_digest", None)
    assert foretold().models["tiny"].cells["scoring"] == CellForecast(finished=1, most=1)


def test_a_grid_is_never_offloaded(
    foretold: Callable[..., GridForecast], model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layerimp.pipeline.prepare, "free_bytes", lambda _device: 1000)
    run = Recipe.model_validate({"model": str(model_dir), "tasks": [], "scorers": ["depth"]})
    assert forecast_of(prepare("run", run, Permissions(), SILENT)).memory.offloaded
    assert not foretold().models["tiny"].memory.offloaded

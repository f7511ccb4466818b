"""The forecast of a grid, made before anything is loaded: all cells, the finished cells, and times."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, get_args

from layerimp.bench.cell_graph import count_at
from layerimp.bench.cells import Kind
from layerimp.bench.resolve import resolve
from layerimp.bench.store import FILE, Store
from layerimp.models.devices import device_named
from layerimp.pipeline.forecast import foretell
from layerimp.pipeline.outline import Outline
from layerimp.progress import SILENT
from layerimp.report.conversion import finite
from layerimp.report.data import PAGE

if TYPE_CHECKING:
    from layerimp.bench.cell_graph import Layout
    from layerimp.bench.cells import Cell, Result
    from layerimp.bench.grid import Grid
    from layerimp.bench.store import Record
    from layerimp.progress import Progress
    from layerimp.recipe import Permissions
    from layerimp.report.forecast_documents import CellForecast, GridForecast, ModelWork, Range
    from layerimp.sizes.ledger import Ledger

NOTES = (
    "evaluations are the most there can be: scorers that remove the same blocks share them",
    "the times are estimates from one block with random weights, on the CPU; planning and healing are not in them",
)


def foretell_grid(
    grid: Grid, output: Path, *, permissions: Permissions, progress: Progress, device: str | None = None
) -> GridForecast:
    """Forecast the work of `run_grid`. Nothing is loaded, scored or written.

    Args:
        grid: The grid.
        output: The directory of the store, which may hold finished cells, and need not exist.
        permissions: Which code that came with data may run.
        progress: Where to report progress.
        device: The device that models would be put on.

    Raises:
        InputError: something in the grid is wrong, or the directory holds something else.
    """
    with TemporaryDirectory() as aside, Store(Path(aside, "digests")) as digests:
        layout = resolve(grid, digests, permissions, progress, device_named(device))
    known: Mapping[str, Record] = {}
    if (output / FILE).exists():
        with Store(output, write=False) as store:
            known = store.records()
    return {
        "schema_version": "layerimp.grid-forecast/1",
        "models": {label: _work(layout, label, known, permissions) for label in layout.models},
        "repeats": grid.repeats,
        "writes": [{"path": str(output / name), "bytes": None} for name in (FILE, PAGE)],
        "notes": list(NOTES),
    }


def _work(layout: Layout, label: str, known: Mapping[str, Record], permissions: Permissions) -> ModelWork:
    """Forecast the work for one model."""
    recipe = layout.models[label].recipe
    scoring = foretell("run", recipe, permissions=permissions, progress=SILENT, may_stream=False)
    cells = _cells(layout, label, known, scoring["num_blocks"])
    left = 1 - cells["scoring"]["finished"] / max(cells["scoring"]["most"], 1)
    seconds, each = scoring["time"]["scoring_s"], scoring["time"]["model_s"]
    open_cells = cells["evaluation"]["most"] - cells["evaluation"]["finished"]
    models = open_cells / max(len(layout.models[label].measures), 1)
    removed = sorted({count_at(amount, scoring["num_blocks"]) for amount in layout.grid.amounts})
    ledger = Outline.of(recipe.model, trust_remote_code=permissions.trust_remote_code).ledger
    return {
        "model": recipe.model,
        "num_blocks": scoring["num_blocks"],
        "removed": removed,
        "removed_parameters": [_share(ledger, count, layout.grid) for count in removed],
        "cells": cells,
        "tokens": scoring["tokens"],
        "passes": scoring["passes"],
        "memory": scoring["memory"],
        "block_ms": scoring["time"]["block_ms"],
        "scoring_s": finite(None if seconds is None else seconds * layout.grid.repeats * left),
        "evaluation_s": finite(None if each is None else each * models),
    }


def _share(ledger: Ledger, count: int, grid: Grid) -> Range:
    """Return the smallest and the largest share of the parameters that so many blocks can have."""
    whole = ledger.left(()).of("parameters")
    free = {one for one in ledger.sublayers if one.block not in grid.protect}
    least, most = (ledger.removable("parameters", free, lightest=light)[: count + 1][-1] for light in (True, False))
    return {"least": round(least / whole, 6), "most": round(most / whole, 6)}


def _cells(layout: Layout, label: str, known: Mapping[str, Record], num_blocks: int) -> dict[str, CellForecast]:
    """Count the finished cells and all possible ones, by kind, as if no two future scorings chose the same blocks."""
    others = count(1)

    def imagined(cell: Cell) -> Result:
        if cell.kind == "scoring":
            return {"scores": [0.0] * num_blocks, "blocks": list(range(num_blocks))}
        first = next(others) * num_blocks  # indices beyond the model's own, and different in every plan
        return {"blocks": list(range(first, first + cell.content.get("count", 0)))}

    results = {key: record.result for key, record in known.items() if record.result is not None}
    finished = Counter(cell.kind for key, cell in layout.cells(results.get, label).items() if key in results)
    while fresh := {key: cell for key, cell in layout.cells(results.get, label).items() if key not in results}:
        results |= {key: imagined(cell) for key, cell in fresh.items()}
    most = Counter(cell.kind for cell in layout.cells(results.get, label).values())
    return {kind: {"finished": finished[kind], "most": most[kind]} for kind in get_args(Kind)}

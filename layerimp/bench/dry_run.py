"""What a prepared grid would do: its cells, those that are finished, and the work that is left."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, get_args

from layerimp.bench.cell_graph import count_at
from layerimp.bench.cells import Kind
from layerimp.bench.store import stored_in
from layerimp.errors import LayerimpError
from layerimp.healer import Scope
from layerimp.indices import kept_blocks
from layerimp.pipeline.healing import healers_of
from layerimp.pipeline.memory import Memory, most_gaps
from layerimp.pipeline.outline import Outline
from layerimp.pipeline.resolve import row_length
from layerimp.pipeline.workload import ROUGHLY, CellCount, DryRun, ModelWork, Range, Workload, bounds, sizes_of
from layerimp.progress import SILENT
from layerimp.scoring.passes import shared_passes
from layerimp.scoring.selection import Selection

if TYPE_CHECKING:
    from layerimp.bench.cell_graph import Layout
    from layerimp.bench.cells import Cell, Result
    from layerimp.bench.prepare import PreparedGrid
    from layerimp.scorer import Scorer
    from layerimp.scoring.passes import Pass

SHARED = "evaluations are the most there can be: scorers that remove the same blocks share them"


def grid_dry_run_of(prepared: PreparedGrid) -> DryRun:
    """Tell what a prepared grid would do. Nothing is loaded, scored or written."""
    with stored_in(prepared.output) as store:
        records = store.records() if store else {}
    known = {key: record.result for key, record in records.items() if record.result is not None}
    works = {label: _work(prepared, label, known) for label in prepared.layout.models}
    return DryRun(command="bench", models=works, output=str(prepared.output), notes=[SHARED, ROUGHLY])


def _work(prepared: PreparedGrid, label: str, known: Mapping[str, Result]) -> ModelWork:
    """Return the work that is left for one model."""
    layout, grid, permissions = prepared.layout, prepared.layout.grid, prepared.permissions
    subject = layout.models[label]
    recipe = subject.recipe
    outline = Outline.of(recipe.model, trust_remote_code=permissions.trust_remote_code)
    num_blocks, length = len(outline.stack), row_length(recipe.calibration, outline.stack.model)
    workload = Workload(outline, recipe, length, Memory.of(outline, recipe, permissions))
    counts = [count_at(amount, num_blocks) for amount in grid.amounts]
    cells, ledger, removed = _cells(layout, label, known, num_blocks), outline.ledger, Range.of(*counts)
    left = {kind: (cell.most - cell.finished) / max(cell.most, 1) for kind, cell in cells.items()}
    models = math.ceil(left["evaluation"] * cells["evaluation"].most / max(len(subject.all_measures), 1))
    repeats = math.ceil(left["scoring"] * grid.repeats)
    scope = Scope(most_gaps(counts, num_blocks), length)
    free = kept_blocks(grid.protect, num_blocks)
    stages = [
        *workload.scoring(_passes(layout, num_blocks), [num_blocks], rows=workload.rows, times=repeats),
        *workload.healing(healers_of(grid.healers, grid.heal_text), scope, None),
        *workload.measuring(prepared.evaluators[label], permissions, models),
    ]
    sizes = sizes_of(ledger, lambda quantity: bounds(ledger, free, removed, quantity))
    return workload.work(removed, sizes, stages, recipe.tasks, cells)


def _passes(layout: Layout, num_blocks: int) -> list[Pass]:
    """List the passes of one scoring; a scorer that does not fit the model fails in its cells, and is left out here."""
    selection = Selection(SILENT, {label: entrant.spec for label, entrant in layout.scorers.items()})
    scorers: dict[str, Scorer] = {}
    for label in selection.specs:
        with suppress(LayerimpError):
            scorers |= selection.create(num_blocks, label)
    return shared_passes(scorers)


def _cells(layout: Layout, label: str, known: Mapping[str, Result], num_blocks: int) -> dict[str, CellCount]:
    """Count the finished cells and all possible ones, by kind, as if no two future scorings chose the same blocks."""
    others = count(1)

    def imagined(cell: Cell) -> Result:
        if cell.kind == "scoring":
            return {"scores": [0.0] * num_blocks, "blocks": list(range(num_blocks))}
        first = next(others) * num_blocks  # indices beyond the model's own, and different in every plan
        return {"blocks": list(range(first, first + cell.content.get("count", 0)))}

    results = dict(known)
    finished = Counter(cell.kind for key, cell in layout.cells(results.get, label).items() if key in results)
    while fresh := {key: cell for key, cell in layout.cells(results.get, label).items() if key not in results}:
        results |= {key: imagined(cell) for key, cell in fresh.items()}
    most = Counter(cell.kind for cell in layout.cells(results.get, label).values())
    return {kind: CellCount(finished=finished[kind], most=most[kind]) for kind in get_args(Kind)}

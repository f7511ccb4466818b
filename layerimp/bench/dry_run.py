"""What a prepared grid would do: the work that is left."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from layerimp.bench.cell_graph import count_at
from layerimp.bench.store import stored_in
from layerimp.errors import LayerimpError
from layerimp.healer import Scope
from layerimp.pipeline.dry_run import ROUGHLY, DryRun, ModelWork, Workload, sizes_of
from layerimp.pipeline.healing import healers_of
from layerimp.pipeline.memory import Memory, most_gaps
from layerimp.pipeline.outline import Outline
from layerimp.pipeline.resolve import row_length
from layerimp.progress import SILENT
from layerimp.scoring.passes import shared_passes
from layerimp.scoring.selection import Selection

if TYPE_CHECKING:
    from layerimp.bench.cell_graph import Layout
    from layerimp.bench.cells import Result
    from layerimp.bench.prepare import PreparedGrid
    from layerimp.scorer import Scorer
    from layerimp.scoring.passes import Pass

SHARED = "models are the most there can be: scorers that remove the same blocks share them"


def grid_dry_run_of(prepared: PreparedGrid) -> DryRun:
    """Tell what a prepared grid would do. Nothing is loaded, scored or written."""
    with stored_in(prepared.output) as store:
        records = store.records() if store else {}
    known = {key: record.result for key, record in records.items() if record.result is not None}
    works = {label: _work(prepared, label, known) for label in prepared.layout.models}
    notes = [f"{len(known):,} cells are finished", SHARED, ROUGHLY]
    return DryRun(command="bench", models=works, output=str(prepared.output), notes=notes)


def _work(prepared: PreparedGrid, label: str, known: Mapping[str, Result]) -> ModelWork:
    """Return the work that is left for one model."""
    layout, grid, permissions = prepared.layout, prepared.layout.grid, prepared.permissions
    recipe = layout.models[label].recipe
    outline = Outline.of(recipe.model, trust_remote_code=permissions.trust_remote_code)
    num_blocks, length = len(outline.stack), row_length(recipe.calibration, outline.stack.model)
    workload = Workload(outline, recipe, permissions, Memory.of(outline, recipe, permissions), length)
    counts = [count_at(amount, num_blocks) for amount in grid.amounts]
    waiting = [cell for key, cell in layout.cells(known.get, label).items() if key not in known]
    draws = len({cell.seed for cell in waiting if cell.kind == "scoring"})
    models = len({str(cell.content["blocks"]) for cell in waiting if cell.kind == "evaluation"})
    models += _plans_left(layout, label, known)
    stages = [
        *workload.scoring(_passes(layout, num_blocks), [num_blocks], rows=workload.rows, times=draws),
        *workload.healing(healers_of(grid.healers, grid.heal_text), Scope(most_gaps(counts, num_blocks), length), None),
        *workload.measuring(prepared.evaluators[label], models),
    ]
    sizes = sizes_of(outline.ledger, [], sorted(counts), grid.protect)
    return ModelWork(model=recipe.model, sizes=sizes, stages=stages, memory=workload.memory)


def _plans_left(layout: Layout, label: str, known: Mapping[str, Result]) -> int:
    """Count the models whose plans are not known yet, as if no two plans removed the same blocks."""
    count, choices = 0, len(layout.pruners) * len(layout.grid.amounts)
    for contender in layout.contenders.values():
        for draw, _ in layout.repeats(contender):
            removals = list(layout.removals(known.get, label, contender.scorer, draw))
            count += sum(blocks is None for *_, blocks in removals) if removals else choices
    return count


def _passes(layout: Layout, num_blocks: int) -> list[Pass]:
    """List the passes of one scoring; a scorer that does not fit the model fails in its cells, and is left out here."""
    selection = Selection(SILENT, {label: entrant.spec for label, entrant in layout.scorers.items()})
    scorers: dict[str, Scorer] = {}
    for label in selection.specs:
        with suppress(LayerimpError):
            scorers |= selection.create(num_blocks, label)
    return shared_passes(scorers)

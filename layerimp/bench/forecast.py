"""The forecast of a prepared grid: all cells, the finished cells, and times."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Literal, get_args

from layerimp.bench.cell_graph import count_at
from layerimp.bench.cells import Kind
from layerimp.bench.store import stored_in
from layerimp.component import versioned
from layerimp.errors import LayerimpError
from layerimp.models.traits import classifies
from layerimp.pipeline.durations import Durations
from layerimp.pipeline.forecast_parts import MemoryForecast, PassForecast, Range
from layerimp.pipeline.outline import Outline
from layerimp.pipeline.resolve import row_length
from layerimp.progress import SILENT
from layerimp.report.results.part import Known, Part, Versioned
from layerimp.scoring.passes import shared_passes
from layerimp.scoring.selection import Selection
from layerimp.steps import candidates

if TYPE_CHECKING:
    from layerimp.bench.cell_graph import Layout
    from layerimp.bench.cells import Cell, Result
    from layerimp.bench.grid import Grid
    from layerimp.bench.prepare import PreparedGrid
    from layerimp.scorer import Scorer
    from layerimp.sizes.ledger import Ledger

NOTES = (
    "evaluations are the most there can be: scorers that remove the same blocks share them",
    "the times are estimates from one block with random weights, on the CPU; planning and healing are not in them",
)


class CellForecast(Part):
    """The cells of one kind."""

    finished: int
    """The number of finished cells."""
    most: int
    """The largest possible number of cells, including finished ones."""


class ModelWork(Part):
    """The work of a grid for one model."""

    model: str
    """The model."""
    num_blocks: int
    """The number of blocks."""
    removed: list[int]
    """The numbers of blocks to remove."""
    removed_parameters: list[Range]
    """For each of these numbers, the share of the parameters that goes."""
    cells: dict[str, CellForecast]
    """By kind: `scoring`, `planning`, `evaluation` (including healed models) and `costing`."""
    tokens: int
    """How many tokens a repeat draws for scoring, at most."""
    passes: list[PassForecast]
    """The passes over the text for one repeat."""
    memory: MemoryForecast
    """Memory."""
    block_ms: Known
    """Measured: one block and one batch of the text, in milliseconds; null if unknown."""
    scoring_s: Known
    """Estimated: all remaining scorings, in seconds; null if unknown."""
    evaluation_s: Known
    """Estimated: all remaining evaluations, at most, in seconds; null if unknown."""


class GridForecast(Versioned):
    """The document that `bench` prints with `--dry-run --json`."""

    schema_version: Literal["layerimp.grid-forecast/1"] = versioned("layerimp.grid-forecast/1")
    models: dict[str, ModelWork]
    """The models, by label."""
    repeats: int
    """How often each scoring is done, each time with different text."""
    notes: list[str]
    """Notes for a reader."""


def grid_forecast_of(prepared: PreparedGrid) -> GridForecast:
    """Forecast the work of a prepared grid. Nothing is loaded, scored or written."""
    with stored_in(prepared.output) as store:
        records = store.records() if store else {}
    known = {key: record.result for key, record in records.items() if record.result is not None}
    return GridForecast(
        models={label: _work(prepared, label, known) for label in prepared.layout.models},
        repeats=prepared.layout.grid.repeats,
        notes=list(NOTES),
    )


def _work(prepared: PreparedGrid, label: str, known: Mapping[str, Result]) -> ModelWork:
    """Forecast the work for one model."""
    layout, grid = prepared.layout, prepared.layout.grid
    subject = layout.models[label]
    recipe = subject.recipe
    outline = Outline.of(recipe.model, trust_remote_code=prepared.permissions.trust_remote_code)
    num_blocks, length = len(outline.stack), row_length(recipe.calibration, outline.stack.model)
    durations, passes = Durations(outline, recipe, length), _passes(layout, outline, recipe.calibration.samples)
    cells = _cells(layout, label, known, num_blocks)
    left = 1 - cells["scoring"].finished / max(cells["scoring"].most, 1)
    scoring, each = durations.scoring(passes), durations.evaluation(prepared.evaluators[label], prepared.permissions)
    open_cells = cells["evaluation"].most - cells["evaluation"].finished
    models = open_cells / max(len(subject.all_measures), 1)
    removed = sorted({count_at(amount, num_blocks) for amount in grid.amounts})
    return ModelWork(
        model=recipe.model,
        num_blocks=num_blocks,
        removed=removed,
        removed_parameters=[_share(outline.ledger, count, grid) for count in removed],
        cells=cells,
        tokens=recipe.calibration.samples * length,
        passes=passes,
        memory=MemoryForecast.of(outline, recipe, prepared.permissions),
        block_ms=durations.block_ms if passes else None,
        scoring_s=None if scoring is None else scoring * grid.repeats * left,
        evaluation_s=None if each is None else each * models,
    )


def _passes(layout: Layout, outline: Outline, rows: int) -> list[PassForecast]:
    """List the passes of one scoring; a scorer that does not fit the model fails in its cells, and is left out here."""
    cuts, num_blocks, labels = layout.grid.cuts, len(outline.stack), classifies(outline.stack.model)
    selection = Selection(SILENT, {label: entrant.spec for label, entrant in layout.scorers.items()})
    scorers: tuple[dict[str, Scorer], dict[str, Scorer]] = {}, {}
    for label in selection.specs:
        with suppress(LayerimpError):
            for own, fresh in zip(scorers, selection.create(cuts, num_blocks, label), strict=True):
                own.update(fresh)
    units = sum(map(len, candidates((), num_blocks, cuts)))
    return [PassForecast.of(shared, units, rows, labels=labels) for shared in shared_passes(scorers)]


def _share(ledger: Ledger, count: int, grid: Grid) -> Range:
    """Return the smallest and the largest share of the parameters that so many blocks can have."""
    whole = ledger.left(()).of("parameters")
    free = {part for part in ledger.sublayers if part.block not in grid.protect}
    least, most = (ledger.removable("parameters", free, lightest=light)[: count + 1][-1] for light in (True, False))
    return Range.of(least / whole, most / whole)


def _cells(layout: Layout, label: str, known: Mapping[str, Result], num_blocks: int) -> dict[str, CellForecast]:
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
    return {kind: CellForecast(finished=finished[kind], most=most[kind]) for kind in get_args(Kind)}

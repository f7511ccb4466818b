"""Grids whose cells are computed by arithmetic, for tests of everything except the computation."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from layerimp.bench.cell_graph import Chooser, Entrant, Layout, Measure, Mender, Subject
from layerimp.bench.cells import Cell, Outcome, Result, failure
from layerimp.bench.executors.base import Assignment
from layerimp.bench.executors.planning import as_importance, planned
from layerimp.bench.grid import Grid
from layerimp.bench.results import grid_results
from layerimp.bench.scheduler import Scheduler
from layerimp.bench.store import Store
from layerimp.bench.watcher import Watcher
from layerimp.bench.work_queue import Tally
from layerimp.errors import LayerimpError
from layerimp.evaluation.packing import packed
from layerimp.evaluator import Likelihood, Metric
from layerimp.pipeline.resolve import resolve
from layerimp.pruner import Pruner, Scoring
from layerimp.recipe import Permissions, validated
from layerimp.report.document import Results
from layerimp.report.results.rows import Row

BLOCKS = 8
SCORERS = {"avss": False, "gbis": False, "random": True, "depth": True, "block-influence": False}
"""The scorers, each with whether it does not look at the model."""
METRICS = ("mood", "prose")
DOCUMENTS = 100
RATIO = 0.25
"""What a grid removes, unless it says something else."""
HEALED: dict[str, Any] = {"healers": ["linear"], "counts": [2], "ratios": []}
"""The changes that make it a grid with a healer, and with one size of removals."""


def layout(**changes: Any) -> Layout:
    """A grid of two scorers and three baselines."""
    grid = validated(
        Grid, {"models": {"one": "one"}, "scorers": ["avss", "gbis"], "tasks": ["mood", "prose"]} | changes
    )
    entrants = {
        label: Entrant(
            spec=spec,
            blind=SCORERS.get(spec.name, False),
            seeded=spec.name == "random",
            code="0",
        )
        for label, spec in (grid.scorers | grid.baselines).items()
    }
    choosers = {
        label: Chooser(spec=spec, nested=spec.name != "window", code="0") for label, spec in grid.pruners.items()
    }
    own = {label: Chooser(spec=spec, nested=True, code="0") for label, spec in grid.own_pruners.items()}
    menders = {label: Mender(spec=spec, code="0") for label, spec in grid.healers.items()}
    measures = tuple(Measure(evaluator="harness", task=task, tag=task) for task in grid.tasks or ())
    subjects = {
        label: Subject(recipe=resolve(grid.recipe(label)), identity=label, text="text", measures=measures)
        for label in grid.models
    }
    return Layout(grid=grid, models=subjects, scorers=entrants, pruners=choosers, healers=menders, own_pruners=own)


def measured(task: str, harm: int) -> Metric:
    """A metric of a model that is worse by a given amount than 90 of 100 correct, or than a perplexity of 10."""
    if task == "mood":
        documents = tuple(float(number < 90 - harm) for number in range(DOCUMENTS))
        return Metric(task, "acc", 0.9 - harm / 100, 0.03, floor=0.5, documents=documents)
    totals = tuple(-8 * math.log(10.0 + harm) + (-1) ** number for number in range(DOCUMENTS))
    likelihood = Likelihood(totals, (8.0,) * DOCUMENTS, (-8 * math.log(100.0),) * DOCUMENTS)
    return Metric(task, "perplexity", 10.0 + harm, 0.1, False, likelihood=likelihood)


def harm_of(blocks: Sequence[int], healing: Mapping[str, Any] | None = None) -> int:
    """How much worse a model is without some blocks; healing halves this, and some text does more."""
    harm = sum(block + 1 for block in blocks)
    return harm if healing is None else harm // 2 - healing["calibration"]["seed"] % 3


def repaired(blocks: Sequence[int]) -> dict[str, Any]:
    """The report of a healer, with a single gap."""
    gap = {"gap": "a gap", "removed": list(blocks), "done": "half", "why": "", "numbers": {"factor": 0.5}}
    loss = {"intact": 1.0, "pruned": 3.0, "healed": 2.0}
    return {"gaps": [gap], "loss": loss, "accuracy": None, "judging_rows": 32, "recovered": 0.5}


def computed(cell: Cell) -> Result:
    """The result of a cell, computed from its content alone."""
    content = cell.content
    if cell.kind == "scoring":
        # The 4 is a seed for which the repeats of a scorer remove different blocks.
        rng = random.Random(f"4 {content['model']} {content['scorer']} {content['options']} {cell.seed}")
        scores = [block + rng.random() * (8 if content["scorer"] == "random" else 2.5) for block in range(BLOCKS)]
        if content["scorer"] == "depth":
            scores = [float(BLOCKS - block) for block in range(BLOCKS)]
        return {"scores": scores, "blocks": list(range(BLOCKS)), "columns": {}, "spans": {}, "notes": []}
    if cell.kind == "costing":
        return {"bare_passes": 1.5, "seconds": 0.1}
    if cell.kind == "evaluation":
        healing = content.get("healing")
        harm = harm_of(content["blocks"], healing)
        metrics = [measured(task, harm) for task in METRICS if task == content["task"]]
        left = BLOCKS - len(content["blocks"])
        size = {"blocks": left, "parameters": 100 + 10 * left, "bytes": 440 + 40 * left}
        return packed(metrics) | {"size": size} | ({"healing": repaired(content["blocks"])} if healing else {})
    raise AssertionError(cell)


def unscored(pruner: Pruner) -> Scoring:
    """These grids have no model to score again."""
    raise AssertionError(pruner)


class Arithmetic:
    """An executor that plans as a worker does, and computes other cells by `computed`.

    For some of these, `what` may raise, or stand in for a dying worker.
    """

    def __init__(self, slots: int = 2, what: Callable[[Cell], Result] = computed) -> None:
        self.slots, self.what = slots, what
        self.assignments: list[Assignment] = []
        self.stopped = False
        self._waiting: list[Assignment] = []

    def start(self, assignment: Assignment) -> None:
        assert len(self._waiting) < self.slots
        self._waiting.append(assignment)
        if assignment.first.kind != "planning":
            self.assignments.append(assignment)

    def finished(self) -> tuple[Assignment, list[Outcome]]:
        assignment = self._waiting.pop(0)
        if assignment.first.kind == "planning":
            return assignment, [self._plan(assignment)]
        outcomes = []
        for cell in assignment.cells:
            try:
                outcomes.append(Outcome(cell.key, self.what(cell), seconds=1.0))
            except MemoryError:
                return assignment, assignment.lost("its worker was ended by SIGKILL")
            except ValueError as error:
                outcomes.append(Outcome(cell.key, error=str(error), seconds=1.0))
        return assignment, outcomes

    def _plan(self, assignment: Assignment) -> Outcome:
        """Plan as a worker does, without a model."""
        cell, importance = assignment.first, assignment.importance
        assert importance is not None
        try:
            return Outcome(cell.key, planned(cell, as_importance(importance), unscored), seconds=1.0)
        except LayerimpError as error:
            return failure(cell.key, error)

    def stop(self) -> None:
        self.stopped = True

    @property
    def cells(self) -> list[Cell]:
        """All cells that the executor was given, except plannings."""
        return [cell for assignment in self.assignments for cell in assignment.cells]


class Watching(Watcher):
    """Records all reports."""

    def __init__(self) -> None:
        self.tallies: list[Tally] = []
        self.failures: list[str] = []

    def update(self, tally: Tally) -> None:
        self.tallies.append(tally)

    def failed(self, cell: Cell, error: str) -> None:
        self.failures.append(f"{cell}: {error}")


def drive(
    directory: Path, executor: Arithmetic, made_layout: Layout | None = None, *, retry: bool = False, **changes: Any
) -> tuple[Layout, Watching]:
    """Run a grid in a directory."""
    made_layout, watching = made_layout or layout(**changes), Watching()
    with Store(directory) as store:
        store.keep_layout(made_layout.model_dump(mode="json"))
        Scheduler(made_layout, store, Permissions(), watching, retry=retry).run(executor)
    return made_layout, watching


def attempts(store: Store) -> dict[str, int]:
    """How often each cell of a store was stored."""
    return dict(store._connection.execute("SELECT key, attempts FROM cells"))


def findings(directory: Path, what: Callable[[Cell], Result] = computed, **changes: Any) -> Results:
    """Run a grid in a directory; what is found in it."""
    drive(directory, Arithmetic(what=what), **changes)
    with Store(directory, write=False) as store:
        layout = store.layout()
        assert layout
        return grid_results(Layout.model_validate(layout), store.records())


def row(results: Results, task: str, ratio: float = RATIO) -> Row:
    """The row of a task."""
    (chosen,) = [each for each in results.models["one"].rows if (each.task, each.amount) == (task, ratio)]
    return chosen


def harming(values: dict[str, float]) -> Callable[[Cell], Result]:
    """An engine for which each scorer's first block does so much harm, and whose documents are without error."""

    def what(cell: Cell) -> Result:
        if cell.kind == "scoring":
            first = list(values).index(cell.content["scorer"])
            scores = [1.0 + (block != first) for block in range(BLOCKS)]
            return {"scores": scores, "blocks": list(range(BLOCKS)), "columns": {}, "spans": {}, "notes": []}
        if cell.kind == "evaluation":
            names = [list(values)[block] for block in cell.content["blocks"]]
            metric = Metric(cell.content["task"], "acc", 0.9 - sum(values[name] for name in names), 0.001)
            left = BLOCKS - len(names)
            return packed([metric]) | {"size": {"blocks": left, "parameters": left, "bytes": left}}
        return computed(cell)

    return what

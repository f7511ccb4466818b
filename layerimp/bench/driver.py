"""Runs a grid: gives an engine what is wanted next, and keeps what comes of it. It alone writes the store."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from layerimp.bench.cells import Cell, Outcome, Result
from layerimp.bench.engines import Assignment, Engine, WorkerError
from layerimp.bench.layout import Layout
from layerimp.bench.settle import measuring
from layerimp.bench.store import Store
from layerimp.bench.work import as_importance, planned, said
from layerimp.recipe import Permissions
from layerimp.scorer import Importance

TRIES = 3
"""How many workers may die over a cell before it has failed."""


@dataclass(frozen=True)
class Tally:
    """How far a grid is.

    Attributes:
        done: Cells that are finished, those of earlier runs among them.
        failed: Cells that failed.
        running: Cells that are under way.
        known: All cells that are known of; what scorings lead to is not, before they are done.
        seconds_left: An estimate, from the cells so far; None before there is one.
    """

    done: int
    failed: int
    running: int
    known: int
    seconds_left: float | None


class Watcher(Protocol):
    """Somebody who wants to know how far a grid is."""

    def update(self, tally: Tally) -> None:
        """Something was started, or has come."""
        ...

    def failed(self, cell: Cell, error: str) -> None:
        """A cell failed."""
        ...


class _NeedsModelError(Exception):
    """A pruner wants the model scored again."""


@dataclass
class Driver:
    """One grid at work.

    Attributes:
        layout: The grid.
        store: Where finished cells are.
        permissions: What may run code.
        watcher: Who is told.
        retry: Whether cells that failed before are tried again.
    """

    layout: Layout
    store: Store
    permissions: Permissions
    watcher: Watcher
    retry: bool = False
    computed: int = 0
    _results: dict[str, Result] = field(default_factory=dict)
    _failed: dict[str, str] = field(default_factory=dict)
    _cells: dict[str, Cell] = field(default_factory=dict)
    _running: set[str] = field(default_factory=set)
    _deaths: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    _seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        for key, record in self.store.records().items():
            if record.result is not None:
                self._results[key] = record.result
            elif not self.retry:
                self._failed[key] = record.error

    def wants_any(self) -> bool:
        """Whether there is anything left to compute."""
        self._look()
        return any(self._wanted())

    def run(self, engine: Engine) -> None:
        """Compute all cells that are wanted and not known.

        Whatever ends this, an interrupt among others, what was finished is kept.
        """
        try:
            self._look()
            busy = 0
            while True:
                while busy < engine.slots and (assignment := self._next()):
                    engine.start(assignment)
                    self._running |= {cell.key for cell in assignment.cells}
                    busy += 1
                    self._tell(engine.slots)
                if not busy:
                    return
                self._take(engine)
                busy -= 1
                self._tell(engine.slots)
        finally:
            engine.stop()

    def _take(self, engine: Engine) -> None:
        """Wait for something to come, and keep it."""
        try:
            assignment, outcomes = engine.finished()
        except WorkerError as error:
            assignment = error.assignment
            outcomes = []
            for cell in assignment.cells:
                self._deaths[cell.key] += 1
                if self._deaths[cell.key] >= TRIES:
                    outcomes.append(Outcome(cell.key, None, str(error)))
        self._running -= {cell.key for cell in assignment.cells}
        by_key = {cell.key: cell for cell in assignment.cells}
        self._keep([(by_key[outcome.key], outcome) for outcome in outcomes])

    def _keep(self, outcomes: Sequence[tuple[Cell, Outcome]]) -> None:
        self._learn(outcomes)
        if any(cell.kind in ("scoring", "planning") or not cell.content.get("blocks", [0]) for cell, _ in outcomes):
            self._look()

    def _learn(self, outcomes: Sequence[tuple[Cell, Outcome]]) -> None:
        self.store.put(outcomes)
        for cell, outcome in outcomes:
            self.computed += 1
            if outcome.result is None:
                self._failed[cell.key] = outcome.error
                self.watcher.failed(cell, outcome.error)
            else:
                self._results[cell.key] = outcome.result
                self._seconds[cell.kind].append(outcome.seconds)

    def _look(self) -> None:
        """Find out what is wanted, now that more is known; plans that need no model are made on the way."""
        while True:
            self._cells = self.layout.cells(self._results.get)
            made = [self._planned_here(cell) for cell in self._wanted() if cell.kind == "planning"]
            plans = [pair for pair in made if pair]
            if not plans:
                return
            self._learn(plans)

    def _wanted(self) -> Iterable[Cell]:
        off = self._results.keys() | self._failed.keys() | self._running
        return (cell for key, cell in self._cells.items() if key not in off)

    def _planned_here(self, cell: Cell) -> tuple[Cell, Outcome] | None:
        """The plan, where one scoring is enough for it."""
        first = as_importance(self._results[cell.content["scoring"]])

        def scoring(removed: Sequence[int]) -> Importance:
            if removed:
                raise _NeedsModelError
            return first

        try:
            return cell, Outcome(cell.key, planned(cell, len(first.scores), scoring))
        except _NeedsModelError:
            return None
        except Exception as error:
            return cell, Outcome(cell.key, None, said(error))

    def _next(self) -> Assignment | None:
        """What to do next: scorings first, since they lead to all else; those of one model and seed together."""
        order = {"scoring": 0, "planning": 1, "evaluation": 2, "costing": 3}
        wanted = sorted(self._wanted(), key=lambda cell: order[cell.kind])  # stable: model by model
        if not wanted:
            return None
        first = wanted[0]
        if first.kind == "scoring" and not self._deaths[first.key]:
            blind = first.content["calibration"] is None
            cells = tuple(
                cell
                for cell in wanted
                if cell.kind == "scoring"
                and cell.model == first.model
                and not self._deaths[cell.key]
                and (cell.content["calibration"] is None) == blind
                and (blind or cell.seed == first.seed)
            )
        else:
            cells = (first,)
        return self._assignment(cells)

    def _assignment(self, cells: tuple[Cell, ...]) -> Assignment:
        first = cells[0]
        recipe = self.layout.models[first.model].recipe
        importance = None
        if first.kind == "evaluation":
            content = first.content
            measure = next(
                each
                for each in self.layout.models[first.model].measures
                if (each.evaluator, each.task) == (content["evaluator"], content["task"])
            )
            recipe = measuring(recipe, measure)
        else:
            specs = {cell.scorer: self.layout.scorers[cell.scorer].spec for cell in cells}
            recipe = recipe.model_copy(update={"seed": first.seed, "scorers": specs})
        if first.kind == "planning":
            importance = self._results[first.content["scoring"]]
        return Assignment(cells, recipe, self.permissions, importance)

    def _tell(self, slots: int) -> None:
        known = self._cells.keys()
        done, failed = len(known & self._results.keys()), len(known & self._failed.keys())
        self.watcher.update(Tally(done, failed, len(self._running), len(known), self._left(slots)))

    def _left(self, slots: int) -> float | None:
        left = [cell.kind for cell in self._wanted()] + [self._cells[key].kind for key in self._running]
        spans = {kind: statistics.mean(times) for kind, times in self._seconds.items()}
        known = [spans[kind] for kind in left if kind in spans]
        if not known:
            return None
        return sum(known) * len(left) / len(known) / slots

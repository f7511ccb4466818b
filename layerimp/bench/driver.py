"""Runs a grid: gives an engine what is wanted next, and keeps what comes of it. It alone writes the store."""

from __future__ import annotations

import statistics
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from layerimp.bench.cells import Cell, Outcome, Result
from layerimp.bench.engines import Assignment, Engine, WorkerError
from layerimp.bench.layout import Layout
from layerimp.bench.settle import measuring
from layerimp.bench.store import Store
from layerimp.bench.work import Shard, as_importance, failure, from_bytes, planned, scored
from layerimp.recipe import Permissions
from layerimp.scorer import Importance

TRIES = 3
"""How often a cell may fall, by an error that need not last or with its worker, before it has failed."""


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
    _falls: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    _shards: dict[str, dict[int, Shard]] = field(default_factory=lambda: defaultdict(dict))
    _queue: deque[Assignment] = field(default_factory=deque)
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
                while busy < engine.slots and (assignment := self._next(engine.slots - busy)):
                    engine.start(assignment)
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
            outcomes = [Outcome(cell.key, error=str(error), lasting=False) for cell in assignment.cells]
        cells = {cell.key: cell for cell in assignment.cells}
        wholes = [(cells[each.key], self._whole(cells[each.key], each, assignment.shard)) for each in outcomes]
        kept = [(cell, whole) for cell, whole in wholes if whole]
        self._learn(kept)
        if any(cell.kind in ("scoring", "planning") or not cell.content.get("blocks", [0]) for cell, _ in kept):
            self._look()

    def _whole(self, cell: Cell, outcome: Outcome, shard: tuple[int, int]) -> Outcome | None:
        """What came of a cell; None where shards of it are missing, or where it is tried again."""
        number, count = shard
        if cell.key in self._results or cell.key in self._failed:
            return None  # another shard has failed it
        if outcome.shard:
            shards = self._shards[cell.key]
            shards[number] = from_bytes(outcome.shard)
            if len(shards) < count:
                return None
            outcome = scored(cell.key, cell.scorer, [shards[index] for index in range(count)])
        self._shards.pop(cell.key, None)
        self._running.discard(cell.key)
        if outcome.result is None and not outcome.lasting:
            self._falls[cell.key] += 1
            if self._falls[cell.key] < TRIES:
                return None
        return outcome

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
            return cell, failure(cell.key, error)

    def _next(self, idle: int) -> Assignment | None:
        """What to do next: scorings first, since they lead to all else; those of one model and seed together."""
        if not self._queue:
            order = {"scoring": 0, "planning": 1, "evaluation": 2, "costing": 3}
            wanted = sorted(self._wanted(), key=lambda cell: order[cell.kind])  # stable: model by model
            if not wanted:
                return None
            cells = self._together(wanted)
            self._running |= {cell.key for cell in cells}
            groups = len({self._group(cell) for cell in wanted})
            self._queue.extend(self._split(cells, idle - groups + 1))
        return self._queue.popleft()

    def _together(self, wanted: Sequence[Cell]) -> list[Cell]:
        """The first cell, and those that share its sweeps."""
        return [cell for cell in wanted if self._group(cell) == self._group(wanted[0])]

    def _group(self, cell: Cell) -> tuple[str, ...]:
        """What cells that are computed together have in common; one that has fallen is tried by itself."""
        if cell.kind != "scoring" or self._falls[cell.key]:
            return (cell.key,)
        return (cell.model, "blind" if cell.content["calibration"] is None else str(cell.seed))

    def _split(self, cells: Sequence[Cell], idle: int) -> Iterable[Assignment]:
        """Assignments of cells that belong together: several, where workers would be idle otherwise."""
        recipe = self.layout.models[cells[0].model].recipe
        count = min(idle, -(-recipe.calibration.samples // recipe.batch_size))
        apart = [cell for cell in cells if cell.kind == "scoring" and self.layout.scorers[cell.scorer].shards]
        if count < 2 or not apart:
            return [self._assignment(cells)]
        rest = [cell for cell in cells if cell not in apart]
        shards = [replace(self._assignment(apart), shard=(index, count)) for index in range(count)]
        return [*([self._assignment(rest)] if rest else []), *shards]

    def _assignment(self, cells: Sequence[Cell]) -> Assignment:
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
        return Assignment(tuple(cells), recipe, self.permissions, importance)

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

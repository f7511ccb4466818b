"""Runs a grid: gives an executor what is wanted next, and keeps what comes of it. It alone writes the store."""

from __future__ import annotations

import signal
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol

from layerimp.bench.cell_graph import Layout, Measure
from layerimp.bench.cells import Cell, Outcome
from layerimp.bench.executors.base import Assignment, Executor, WorkerError
from layerimp.bench.executors.worker import Shard, as_importance, failure, from_bytes, planned, scored
from layerimp.bench.store import Store
from layerimp.bench.work_queue import Tally, WorkQueue
from layerimp.errors import LayerimpError
from layerimp.recipe import Permissions
from layerimp.scorer import Importance
from layerimp.steps import Step

TRIES = 3
"""How often a cell may fall, by an error that need not last or with its worker, before it has failed."""

_INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Watcher(Protocol):
    """Somebody who wants to know how far a grid is."""

    def update(self, tally: Tally) -> None:
        """Something was started, or has come."""
        ...

    def failed(self, cell: Cell, error: str) -> None:
        """A cell failed."""
        ...


class Unwatched:
    """A watcher that tells nobody."""

    def update(self, tally: Tally) -> None:
        """Say nothing."""

    def failed(self, cell: Cell, error: str) -> None:
        """Say nothing: the report names what failed."""


@contextmanager
def _undisturbed() -> Iterator[None]:
    """A second Ctrl-C does not interrupt what the first one began."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _INTERRUPTS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _NeedsModelError(LayerimpError):
    """A pruner wants the model scored again."""


class Scheduler:
    """One grid at work.

    Args:
        layout: The grid.
        store: Where finished cells are.
        permissions: What may run code.
        watcher: Who is told.
        retry: Whether cells that failed before are tried again.
    """

    def __init__(
        self, layout: Layout, store: Store, permissions: Permissions, watcher: Watcher, *, retry: bool = False
    ) -> None:
        self._layout, self._store, self._permissions, self._watcher = layout, store, permissions, watcher
        self._queue = WorkQueue(layout, store.records(), retry=retry)
        self._falls: Counter[str] = Counter()
        self._shards: dict[str, dict[int, Shard]] = defaultdict(dict)
        self._split_off: deque[Assignment] = deque()
        self._plan_here()

    def wants_any(self) -> bool:
        """Whether there is anything left to compute."""
        return self._queue.waiting() > 0

    def run(self, executor: Executor) -> None:
        """Compute all cells that are wanted and not known.

        Whatever ends this, an interrupt among others, what was finished is kept.
        """
        busy = 0
        try:
            while True:
                slots = executor.slots
                while busy < slots and (assignment := self._next(slots - busy)):
                    executor.start(assignment)
                    busy += 1
                self._watcher.update(self._queue.tally(slots))
                if not busy:
                    return
                self._take(executor)
                busy -= 1
        finally:
            with _undisturbed():
                executor.stop()

    def _take(self, executor: Executor) -> None:
        """Wait for something to come, and keep it."""
        try:
            assignment, outcomes = executor.finished()
        except WorkerError as error:
            assignment = error.assignment
            outcomes = [Outcome(cell.key, error=str(error), lasting=False) for cell in assignment.cells]
        cells = {cell.key: cell for cell in assignment.cells}
        wholes = [(cells[each.key], self._whole(cells[each.key], each, assignment.shard)) for each in outcomes]
        kept = [(cell, whole) for cell, whole in wholes if whole]
        self._keep(kept)
        # Of the evaluations only those of intact models lead on.
        leading = [cell for cell, _ in kept if cell.kind in ("scoring", "planning") or cell.content.get("blocks") == []]
        if leading:
            self._queue.look({cell.model for cell in leading})
            self._plan_here()

    def _whole(self, cell: Cell, outcome: Outcome, shard: tuple[int, int]) -> Outcome | None:
        """What came of a cell; None where shards of it are missing, or where it is tried again."""
        number, count = shard
        if self._queue.is_settled(cell.key):
            return None  # another shard has failed it
        if outcome.shard:
            shards = self._shards[cell.key]
            shards[number] = from_bytes(outcome.shard)
            if len(shards) < count:
                return None
            outcome = scored(cell.key, cell.scorer, [shards[index] for index in range(count)])
        self._shards.pop(cell.key, None)
        if outcome.result is None and not outcome.lasting:
            self._falls[cell.key] += 1
            if self._falls[cell.key] < TRIES:
                self._queue.again(cell)
                return None
        return outcome

    def _keep(self, outcomes: Sequence[tuple[Cell, Outcome]]) -> None:
        self._store.put(outcomes)
        for cell, outcome in outcomes:
            self._queue.settle(cell, outcome)
            if outcome.result is None:
                self._watcher.failed(cell, outcome.error)

    def _plan_here(self) -> None:
        """Make the plans that need no model."""
        while made := [pair for cell in self._queue.ready("planning") if (pair := self._planned(cell))]:
            self._keep(made)
            self._queue.look({cell.model for cell, _ in made})

    def _planned(self, cell: Cell) -> tuple[Cell, Outcome] | None:
        """The plan, where one scoring is enough for it."""
        first = as_importance(self._queue.results[cell.content["scoring"]])

        def scoring(removed: Sequence[Step]) -> Importance:
            if removed:
                raise _NeedsModelError
            return first

        try:
            num_blocks = sum(isinstance(step, int) for step in first.blocks)
            return cell, Outcome(cell.key, planned(cell, num_blocks, scoring))
        except _NeedsModelError:
            return None
        except Exception as error:
            return cell, failure(cell.key, error)

    def _next(self, idle: int) -> Assignment | None:
        """What to do next."""
        if not self._split_off:
            ready = self._queue.ready()
            if not ready:
                return None
            first = next(iter(ready))
            cells = [first]
            spare = idle - self._queue.waiting() + 1
            if first.kind == "scoring" or first.healer:
                group = self._group(first)
                cells = [cell for cell in ready if self._group(cell) == group]
            if first.kind == "scoring":
                spare += len(ready) - len(set(map(self._group, ready)))
            self._queue.start(cells)
            self._split_off.extend(self._split(cells, spare))
        return self._split_off.popleft()

    def _group(self, cell: Cell) -> tuple[str, ...]:
        """What cells that are computed together have in common; one that has fallen is tried by itself.

        These are the scorings that read the same text, and the evaluations of one healed model.
        """
        if self._falls[cell.key]:
            return (cell.key,)
        if cell.kind == "evaluation":
            return (cell.model, cell.healer, str(cell.seed), *map(str, cell.content["blocks"]))
        return (cell.model, "blind" if cell.content["calibration"] is None else str(cell.seed))

    def _split(self, cells: Sequence[Cell], spare: int) -> Iterable[Assignment]:
        """Assignments of cells that belong together: several, where so many workers would be idle otherwise."""
        recipe = self._layout.models[cells[0].model].recipe
        count = min(spare, -(-recipe.calibration.samples // recipe.batch_size))
        apart = [cell for cell in cells if cell.kind == "scoring" and self._layout.scorers[cell.scorer].shards]
        if count < 2 or not apart:
            return [self._assignment(cells)]
        rest = [cell for cell in cells if cell not in apart]
        shards = [replace(self._assignment(apart), shard=(index, count)) for index in range(count)]
        return [*([self._assignment(rest)] if rest else []), *shards]

    def _assignment(self, cells: Sequence[Cell]) -> Assignment:
        first = cells[0]
        subject = self._layout.models[first.model]
        recipe, importance = subject.recipe, None
        measures: tuple[Measure, ...] = ()
        if first.kind == "evaluation":
            known = {(each.evaluator, each.tag): each for each in subject.measures}
            measures = tuple(known[cell.content["evaluator"], cell.content["tag"]] for cell in cells)
        else:
            specs = {cell.scorer: self._layout.spec(cell.scorer, cell.seed) for cell in cells}
            recipe = recipe.model_copy(update={"seed": first.seed, "scorers": specs})
        if first.kind == "planning":
            importance = self._queue.results[first.content["scoring"]]
        return Assignment(tuple(cells), recipe, self._permissions, measures, importance)

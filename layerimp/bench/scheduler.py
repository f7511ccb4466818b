"""The scheduler: it gives an executor the next cells and stores the results. Nothing else writes to the store."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import replace

from layerimp.bench.cell_graph import Layout
from layerimp.bench.cells import Cell, Outcome
from layerimp.bench.executors.base import Assignment, Executor
from layerimp.bench.executors.outcomes import from_bytes, scored
from layerimp.bench.store import Store
from layerimp.bench.watcher import Watcher
from layerimp.bench.work_queue import WorkQueue
from layerimp.recipe import Permissions

TRIES = 3
"""How often a cell is tried. Only errors that may not recur, such as the death of a worker, lead to another try."""


class Scheduler:
    """Runs one grid.

    Args:
        layout: The grid.
        store: The store of finished cells.
        permissions: Which code that came with data may run.
        watcher: Where to report progress.
        retry: Whether to try cells again that failed before.
    """

    def __init__(
        self, layout: Layout, store: Store, permissions: Permissions, watcher: Watcher, *, retry: bool = False
    ) -> None:
        self._layout, self._store, self._permissions, self._watcher = layout, store, permissions, watcher
        self._queue = WorkQueue(layout, store.records(), retry=retry)
        self._falls: Counter[str] = Counter()
        self._shards: dict[str, dict[int, Outcome]] = defaultdict(dict)
        self._split_off: deque[Assignment] = deque()

    def wants_any(self) -> bool:
        """Whether any cells are left to compute."""
        return self._queue.waiting() > 0

    def run(self, executor: Executor) -> None:
        """Compute all cells that are wanted and not known.

        Finished cells are kept, however this ends, such as by an interrupt.
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
            executor.stop()

    def _take(self, executor: Executor) -> None:
        """Wait for an assignment to finish, and store its outcomes."""
        assignment, outcomes = executor.finished()
        cells = {cell.key: cell for cell in assignment.cells}
        wholes = [(cells[each.key], self._whole(cells[each.key], each, assignment)) for each in outcomes]
        kept = [(cell, whole) for cell, whole in wholes if whole]
        self._keep(kept)
        # Among evaluations, only those of intact models lead to further cells.
        leading = [cell for cell, _ in kept if cell.kind in ("scoring", "planning") or cell.content.get("blocks") == []]
        if leading:
            self._queue.look({cell.model for cell in leading})

    def _whole(self, cell: Cell, outcome: Outcome, assignment: Assignment) -> Outcome | None:
        """Return the outcome of a whole cell; None if shards are missing, or if the cell is tried again."""
        if self._is_over(assignment, cell):
            return None
        if outcome.shard:
            number, count = assignment.shard
            shards = self._shards[cell.key]
            shards[number] = outcome
            if len(shards) < count:
                return None
            whole = scored(cell.key, cell.scorer, [from_bytes(shards[index].shard) for index in range(count)])
            outcome = replace(whole, seconds=sum(part.seconds for part in shards.values()))
        self._shards.pop(cell.key, None)
        if outcome.result is None and not outcome.lasting:
            self._falls[cell.key] += 1
            if self._falls[cell.key] < TRIES:
                self._queue.again(cell)
                return None
        return outcome

    def _is_over(self, assignment: Assignment, *cells: Cell) -> bool:
        """Whether another shard of these cells (all, unless some are named) has failed since they were assigned."""
        return all(
            self._queue.is_settled(cell.key) or self._falls[cell.key] > assignment.attempt
            for cell in cells or assignment.cells
        )

    def _keep(self, outcomes: Sequence[tuple[Cell, Outcome]]) -> None:
        self._store.put(outcomes)
        for cell, outcome in outcomes:
            self._queue.settle(cell, outcome)
            if outcome.result is None:
                self._watcher.failed(cell, outcome.error)

    def _next(self, idle: int) -> Assignment | None:
        """Return the next assignment; None if no cell is ready."""
        while self._split_off and self._is_over(self._split_off[0]):
            self._split_off.popleft()
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
        """Return the group of a cell; the cells of a group are computed together.

        Scorings of the same text form a group, and so do evaluations of the same healed model. A cell that has failed
        before is tried alone.
        """
        if self._falls[cell.key]:
            return (cell.key,)
        if cell.kind == "evaluation":
            return (cell.model, cell.healer, str(cell.seed), *map(str, cell.content["blocks"]))
        return (cell.model, "blind" if cell.content["calibration"] is None else str(cell.seed))

    def _split(self, cells: Sequence[Cell], spare: int) -> Iterable[Assignment]:
        """Make assignments of cells that belong together: several, if `spare` workers would otherwise be idle."""
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
        importance = self._queue.results[first.content["scoring"]] if first.kind == "planning" else None
        return Assignment(tuple(cells), self._layout, self._permissions, importance, attempt=self._falls[first.key])

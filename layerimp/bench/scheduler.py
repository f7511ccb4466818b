"""The scheduler: it gives an executor the next cells and stores the results. Nothing else writes to the store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from layerimp.bench.cell_graph import Layout
from layerimp.bench.cells import Cell, Outcome
from layerimp.bench.executors.base import Assignment, Executor
from layerimp.bench.store import Store
from layerimp.bench.watcher import Watcher
from layerimp.bench.work_queue import WorkQueue
from layerimp.recipe import Permissions

TRIES = 3
"""How often a cell is tried. Only what may not recur leads to another try, such as the death of a worker."""
ENDED = f"the process was killed {TRIES} times while this was computed (out of memory?); --retry-failed tries it again"


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
        if retry:
            store.end(store.started())
        self._falls = Counter(store.started())

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
                while busy < slots and (assignment := self._next()):
                    executor.start(assignment)
                    busy += 1
                self._watcher.update(self._queue.tally())
                if not busy:
                    return
                self._take(executor)
                busy -= 1
        finally:
            executor.stop()
            self._store.end(self._queue.running)

    def _take(self, executor: Executor) -> None:
        """Wait for an assignment to finish, and store its outcomes."""
        assignment, outcomes = executor.finished()
        cells = {cell.key: cell for cell in assignment.cells}
        kept = [(cells[each.key], each) for each in outcomes if not self._is_tried_again(each)]
        self._keep(kept)
        again = cells.keys() - {cell.key for cell, _ in kept}
        for key in again:
            self._queue.again(cells[key])
        self._store.end(again)
        # Among evaluations, only those of intact models lead to further cells.
        leading = [cell for cell, _ in kept if cell.kind in ("scoring", "planning") or cell.content.get("blocks") == []]
        if leading:
            self._queue.look({cell.model for cell in leading})

    def _is_tried_again(self, outcome: Outcome) -> bool:
        """Whether a cell failed in a way that may not recur, and has not done so too often."""
        if outcome.result is not None or outcome.lasting:
            return False
        self._falls[outcome.key] += 1
        return self._falls[outcome.key] < TRIES

    def _keep(self, outcomes: Sequence[tuple[Cell, Outcome]]) -> None:
        self._store.put(outcomes)
        for cell, outcome in outcomes:
            self._queue.settle(cell, outcome)
            if outcome.result is None:
                self._watcher.failed(cell, outcome.error)

    def _next(self) -> Assignment | None:
        """Return the next assignment; None if no cell is ready."""
        while first := next(iter(self._queue.ready()), None):
            if self._falls[first.key] < TRIES:
                break
            self._queue.start([first])
            self._keep([(first, Outcome(first.key, error=ENDED))])
        else:
            return None
        cells = [first]
        if first.kind == "scoring" or first.healer:
            group = self._group(first)
            cells = [cell for cell in self._queue.ready() if self._group(cell) == group]
        self._queue.start(cells)
        self._store.begin(cells)
        importance = self._queue.results[first.content["scoring"]] if first.kind == "planning" else None
        return Assignment(tuple(cells), self._layout, self._permissions, importance)

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

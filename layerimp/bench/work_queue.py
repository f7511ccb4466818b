"""The work queue: the cells of a grid that are ready to be computed, updated as results arrive."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import get_args

from layerimp.bench.cell_graph import Layout
from layerimp.bench.cells import Cell, Kind, Outcome, Result
from layerimp.bench.store import StoredCell

KINDS: tuple[Kind, ...] = get_args(Kind)
"""The kinds of cells in the order of computing: scorings come first, since other cells depend on them."""


@dataclass(frozen=True)
class Tally:
    """The progress of a grid.

    Attributes:
        done: The number of finished cells, including those of earlier runs.
        failed: The number of failed cells.
        running: The number of cells in progress.
        known: The number of all cells known so far. The cells that a scoring leads to are known once it is finished.
    """

    done: int
    failed: int
    running: int
    known: int


class WorkQueue:
    """The cells of a grid that can be computed from the results so far.

    Args:
        layout: The grid.
        records: The stored cells of earlier runs, by key.
        retry: Whether to compute cells again that failed in earlier runs.

    Attributes:
        results: The results so far, by key.
        running: The cells in progress, by key.
    """

    def __init__(self, layout: Layout, records: Mapping[str, StoredCell], *, retry: bool) -> None:
        self._layout = layout
        self.results: dict[str, Result] = {}
        self._failed: set[str] = set()
        for key, record in records.items():
            if record.result is not None:
                self.results[key] = record.result
            elif not retry:
                self._failed.add(key)
        self._seen: set[str] = set()
        self._ready: dict[Kind, dict[str, Cell]] = {kind: {} for kind in KINDS}
        self.running: dict[str, Cell] = {}
        self.look(layout.models)

    def look(self, models: Iterable[str]) -> None:
        """Find the cells that the known results of some models lead to, also for other labels of the same models."""
        subjects = self._layout.models
        alike = {subjects[model].identity for model in models}
        for model in (label for label, subject in subjects.items() if subject.identity in alike):
            for key, cell in self._layout.cells(self.results.get, model).items():
                if key not in self._seen and not self.is_settled(key):
                    self._ready[cell.kind][key] = cell
                self._seen.add(key)

    def ready(self) -> Collection[Cell]:
        """The cells that are ready to compute, of the first kind that has any."""
        return next((self._ready[kind].values() for kind in KINDS if self._ready[kind]), ())

    def waiting(self) -> int:
        """How many cells of any kind are ready to compute."""
        return sum(map(len, self._ready.values()))

    def start(self, cells: Iterable[Cell]) -> None:
        """Mark cells as in progress."""
        for cell in cells:
            self.running[cell.key] = self._ready[cell.kind].pop(cell.key)

    def again(self, cell: Cell) -> None:
        """Put a cell in progress back into the queue."""
        if self.running.pop(cell.key, None):
            self._ready[cell.kind][cell.key] = cell

    def is_settled(self, key: str) -> bool:
        """Whether the outcome of a cell is known."""
        return key in self.results or key in self._failed

    def settle(self, cell: Cell, outcome: Outcome) -> None:
        """Take the outcome of a cell."""
        self.running.pop(cell.key, None)
        self._ready[cell.kind].pop(cell.key, None)
        if outcome.result is None:
            self._failed.add(cell.key)
        else:
            self.results[cell.key] = outcome.result

    def tally(self) -> Tally:
        """Return the progress of the grid."""
        done, failed = len(self._seen & self.results.keys()), len(self._seen & self._failed)
        return Tally(done, failed, len(self.running), len(self._seen))

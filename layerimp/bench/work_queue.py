"""Which cells of a grid are wanted, as more becomes known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import get_args

from layerimp.bench.cell_graph import Layout
from layerimp.bench.cells import Cell, Kind, Outcome, Result
from layerimp.bench.store import Record

KINDS: tuple[Kind, ...] = get_args(Kind)
"""In the order in which they are computed: scorings lead to all else."""


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


class WorkQueue:
    """The cells of a grid between those that are known and those that nobody knows of yet.

    Args:
        layout: The grid.
        records: What is known of earlier.
        retry: Whether what failed then is wanted again.
    """

    def __init__(self, layout: Layout, records: Mapping[str, Record], *, retry: bool) -> None:
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
        self._running: dict[str, Cell] = {}
        self._seconds: dict[Kind, list[float]] = {kind: [] for kind in KINDS}
        self.look(layout.models)

    def look(self, models: Iterable[str]) -> None:
        """Find the cells that what is known of some models leads to, also under other labels of theirs."""
        subjects = self._layout.models
        alike = {subjects[model].identity for model in models}
        for model in (label for label, subject in subjects.items() if subject.identity in alike):
            for key, cell in self._layout.cells(self.results.get, model).items():
                if key not in self._seen and not self.is_settled(key):
                    self._ready[cell.kind][key] = cell
                self._seen.add(key)

    def ready(self, kind: Kind | None = None) -> Collection[Cell]:
        """What is to be computed, of one kind; by default of the first kind of which there is any."""
        kinds = [kind] if kind else KINDS
        return next((self._ready[each].values() for each in kinds if self._ready[each]), ())

    def waiting(self) -> int:
        """How many cells are to be computed, whatever their kind."""
        return sum(map(len, self._ready.values()))

    def start(self, cells: Iterable[Cell]) -> None:
        """Some cells are under way."""
        for cell in cells:
            self._running[cell.key] = self._ready[cell.kind].pop(cell.key)

    def again(self, cell: Cell) -> None:
        """A cell that was under way is to be computed once more."""
        if self._running.pop(cell.key, None):
            self._ready[cell.kind][cell.key] = cell

    def is_settled(self, key: str) -> bool:
        """Whether it is known what came of a cell."""
        return key in self.results or key in self._failed

    def settle(self, cell: Cell, outcome: Outcome) -> None:
        """It is known what came of a cell."""
        self._running.pop(cell.key, None)
        self._ready[cell.kind].pop(cell.key, None)
        if outcome.result is None:
            self._failed.add(cell.key)
        else:
            self.results[cell.key] = outcome.result
            self._seconds[cell.kind].append(outcome.seconds)

    def tally(self, workers: int) -> Tally:
        """How far the grid is, where so many cells are computed at once."""
        left = Counter({kind: len(cells) for kind, cells in self._ready.items()})
        left.update(cell.kind for cell in self._running.values())
        known = {kind: fmean(seconds) for kind, seconds in self._seconds.items() if seconds}
        seconds = None
        if counted := sum(left[kind] for kind in known):
            # Kinds of which nothing is timed yet take as long as the others do on average.
            seconds = sum(left[kind] * mean for kind, mean in known.items()) * left.total() / counted / workers
        done, failed = len(self._seen & self.results.keys()), len(self._seen & self._failed)
        return Tally(done, failed, len(self._running), len(self._seen), seconds)

"""What is told of the progress of a grid; it imports nothing, so that every command can show progress."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from layerimp.bench.cells import Cell
    from layerimp.bench.work_queue import Tally


class Watcher:
    """Gets reports on the progress of a grid, and ignores them."""

    def update(self, tally: Tally) -> None:
        """Take the new state: cells were started, or have finished."""

    def failed(self, cell: Cell, error: str) -> None:
        """Take the error of a cell that failed, which the results name as well."""

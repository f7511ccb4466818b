"""Where cells are computed. An executor knows nothing of grids and stores: it takes assignments, and gives outcomes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from layerimp.bench.cell_graph import Measure
from layerimp.bench.cells import Cell, Outcome, Result
from layerimp.recipe import Permissions, Recipe

NO_RAY = "--engine ray needs Ray: pip install 'layerimp[ray]'"
"""What is said where Ray is asked for and not installed."""


@dataclass(frozen=True)
class Assignment:
    """Cells of one kind and one model that are computed together, with all that this takes: it can be sent anywhere.

    Attributes:
        cells: What is computed.
        recipe: What is asked of the model; of scorings with the seed of these cells.
        permissions: What may run code.
        measures: For evaluations, what each cell measures.
        importance: For a plan, the scoring that it starts from.
        shard: For scorings, which part of the text is meant: its number, and how many there are.
    """

    cells: tuple[Cell, ...]
    recipe: Recipe
    permissions: Permissions
    measures: tuple[Measure, ...] = ()
    importance: Result | None = None
    shard: tuple[int, int] = (0, 1)


class WorkerError(Exception):
    """A worker died before it was done.

    Attributes:
        assignment: What it was at.
    """

    def __init__(self, assignment: Assignment, cause: str) -> None:
        super().__init__(cause)
        self.assignment = assignment


class Executor(Protocol):
    """Computes assignments."""

    @property
    def slots(self) -> int:
        """How many it computes at once; that may change on the way."""
        ...

    def start(self, assignment: Assignment) -> None:
        """Take an assignment; only as long as fewer than `slots` are under way."""
        ...

    def finished(self) -> tuple[Assignment, list[Outcome]]:
        """Wait for one of those that are under way.

        Raises:
            WorkerError: its worker died; another one has taken its place.
        """
        ...

    def stop(self) -> None:
        """End all work at once; what is under way is lost."""
        ...

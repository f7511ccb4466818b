"""The contract of an executor: it takes assignments and returns outcomes, and knows nothing of grids and stores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from layerimp.bench.cell_graph import Measure
from layerimp.bench.cells import Cell, Outcome, Result
from layerimp.recipe import Permissions, Recipe

NO_RAY = "--engine ray needs Ray: pip install 'layerimp[ray]'"
"""The error message if Ray is asked for and not installed."""


@dataclass(frozen=True)
class Assignment:
    """Cells of one kind and one model that are computed together, with all inputs, so that it can be sent anywhere.

    Attributes:
        cells: The cells.
        recipe: The recipe of the model; for scorings with the seed of these cells.
        permissions: Which code that came with data may run.
        measures: For evaluations, the measure of each cell.
        importance: For a planning, the scoring to plan from.
        shard: For scorings, the part of the text: its number, and the number of parts.
        text_seeds: The seeds of all draws of calibration text of the grid.
        attempt: How often these cells have failed before; the shards of an earlier attempt are not mixed with others.
    """

    cells: tuple[Cell, ...]
    recipe: Recipe
    permissions: Permissions
    measures: tuple[Measure, ...] = ()
    importance: Result | None = None
    shard: tuple[int, int] = (0, 1)
    text_seeds: range = range(0)
    attempt: int = 0


class WorkerError(Exception):
    """A worker died before it finished its assignment.

    Attributes:
        assignment: The assignment.
    """

    def __init__(self, assignment: Assignment, cause: str) -> None:
        super().__init__(cause)
        self.assignment = assignment


class Executor(Protocol):
    """Computes assignments."""

    @property
    def slots(self) -> int:
        """How many assignments are computed at once; may change over time."""
        ...

    def start(self, assignment: Assignment) -> None:
        """Start an assignment. May be called only if fewer than `slots` are in progress."""
        ...

    def finished(self) -> tuple[Assignment, list[Outcome]]:
        """Wait for an assignment in progress, and return it with its outcomes.

        Raises:
            WorkerError: the worker died; another worker has replaced it.
        """
        ...

    def stop(self) -> None:
        """End all work immediately; assignments in progress are lost."""
        ...

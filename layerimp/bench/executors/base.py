"""The contract of an executor: it takes assignments and returns outcomes, and knows nothing of grids and stores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from layerimp.bench.cell_graph import Layout, Measure, Subject
from layerimp.bench.cells import Cell, Outcome, Result
from layerimp.recipe import Permissions, Recipe


@dataclass(frozen=True)
class Assignment:
    """Cells of one kind and one model that are computed together, with all inputs, so that it can be sent anywhere.

    Attributes:
        cells: The cells.
        layout: The grid, from which a worker knows what the cells stand for.
        permissions: Which code that came with data may run.
        importance: For a planning, the scoring to plan from.
    """

    cells: tuple[Cell, ...]
    layout: Layout
    permissions: Permissions
    importance: Result | None = None

    @property
    def first(self) -> Cell:
        """The first cell."""
        return self.cells[0]

    @property
    def subject(self) -> Subject:
        """The model."""
        return self.layout.models[self.first.model]

    @property
    def recipe(self) -> Recipe:
        """The recipe of the model."""
        return self.subject.recipe

    def measured(self) -> list[tuple[Cell, Measure]]:
        """The cells of evaluations, each with what it measures."""
        measures = {(each.evaluator, each.tag): each for each in self.subject.all_measures}
        return [(cell, measures[cell.content["evaluator"], cell.content["tag"]]) for cell in self.cells]

    def lost(self, cause: str) -> list[Outcome]:
        """The outcomes of these cells if their worker is lost, which are tried again."""
        return [Outcome(cell.key, error=cause, lasting=False) for cell in self.cells]


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
        """Wait for an assignment in progress, and return it with its outcomes, also if its worker is lost."""
        ...

    def stop(self) -> None:
        """End all work immediately; assignments in progress are lost."""
        ...

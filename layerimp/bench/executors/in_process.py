"""The executor that computes in this process, one assignment at a time: nothing is started, nothing can die alone."""

from __future__ import annotations

from layerimp.bench.cells import Outcome
from layerimp.bench.executors.base import Assignment
from layerimp.bench.executors.worker import Worker


class InProcess:
    """Computes in this process.

    Args:
        device: Where models are put; None for the first GPU, else the CPU.
    """

    slots = 1

    def __init__(self, device: str | None) -> None:
        self._worker = Worker(device)
        self._waiting: list[Assignment] = []

    def start(self, assignment: Assignment) -> None:
        """Take an assignment."""
        self._waiting.append(assignment)

    def finished(self) -> tuple[Assignment, list[Outcome]]:
        """Compute it."""
        assignment = self._waiting.pop()
        return assignment, self._worker.compute(assignment)

    def stop(self) -> None:
        """There is nothing to end."""

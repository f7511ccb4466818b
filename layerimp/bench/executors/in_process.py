"""The executor that computes in this process, one assignment at a time."""

from __future__ import annotations

from layerimp.bench.cells import Outcome
from layerimp.bench.executors.base import Assignment
from layerimp.bench.executors.worker import Worker


class InProcess:
    """Computes in this process.

    Args:
        device: The device that models are put on; None for the first GPU, else the CPU.
    """

    slots = 1

    def __init__(self, device: str | None) -> None:
        self._worker = Worker(device)
        self._waiting: list[Assignment] = []

    def start(self, assignment: Assignment) -> None:
        """Keep an assignment for `finished`."""
        self._waiting.append(assignment)

    def finished(self) -> tuple[Assignment, list[Outcome]]:
        """Compute the assignment."""
        assignment = self._waiting.pop()
        return assignment, self._worker.compute(assignment)

    def stop(self) -> None:
        """Do nothing: no other process has to end."""

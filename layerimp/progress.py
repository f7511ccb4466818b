"""The interface through which long work reports its progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Advance = Callable[[int], None]
"""Reports that more units of a stage are done."""


class Progress(Protocol):
    """Receives reports on the progress of work."""

    def stage(self, description: str, total: int | None = None, *, unit: str = "") -> AbstractContextManager[Advance]:
        """Enter a stage, which yields a function to call as units finish.

        Args:
            description: What is done.
            total: The number of units; None if unknown.
            unit: The name of the units, such as `steps` or `bytes`; `%` if the stage has 100.
        """
        ...

    def note(self, text: str) -> None:
        """Report one line that a user has to know immediately, such as what is left out."""
        ...


def span(seconds: float) -> str:
    """Show a length of time, rounded."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class About:
    """Passes on reports, with the name of the component that they come from.

    Args:
        progress: Where to report progress.
        who: The name of the component.
    """

    def __init__(self, progress: Progress, who: str) -> None:
        self._progress, self._who = progress, who

    def stage(self, description: str, total: int | None = None, *, unit: str = "") -> AbstractContextManager[Advance]:
        """Enter a stage of the component."""
        return self._progress.stage(f"{self._who}: {description}", total, unit=unit)

    def note(self, text: str) -> None:
        """Report a line of the component."""
        self._progress.note(f"{self._who}: {text}")


class Silent:
    """Nobody."""

    @contextmanager
    def stage(self, description: str, total: int | None = None, *, unit: str = "") -> Iterator[Advance]:
        """Report nothing."""
        yield lambda _units: None

    def note(self, text: str) -> None:
        """Report nothing."""


SILENT = Silent()

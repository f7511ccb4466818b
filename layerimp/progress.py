"""How long work reports its progress, whoever is listening."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Advance = Callable[[int], None]
"""Says that so many more units of a stage are done."""


class Progress(Protocol):
    """Somebody who wants to know how far the work is."""

    def stage(self, description: str, total: int | None = None) -> AbstractContextManager[Advance]:
        """Enter a stage of `total` units (None: unknown); what it yields is called as units finish."""
        ...

    def note(self, text: str) -> None:
        """Say one line that a user has to know now, such as what is left out."""
        ...


class About:
    """Passes on what is reported, and says of whom it is.

    Args:
        progress: Who listens.
        who: Of whom.
    """

    def __init__(self, progress: Progress, who: str) -> None:
        self._progress, self._who = progress, who

    def stage(self, description: str, total: int | None = None) -> AbstractContextManager[Advance]:
        """Enter a stage of theirs."""
        return self._progress.stage(f"{self._who}: {description}", total)

    def note(self, text: str) -> None:
        """Say a line of theirs."""
        self._progress.note(f"{self._who}: {text}")


class Silent:
    """Nobody."""

    @contextmanager
    def stage(self, description: str, total: int | None = None) -> Iterator[Advance]:
        """Report nothing."""
        yield lambda _units: None

    def note(self, text: str) -> None:
        """Say nothing."""


SILENT = Silent()

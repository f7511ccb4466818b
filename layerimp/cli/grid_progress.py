"""How far a grid is: a live line on a terminal, and a line now and then in a log."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from layerimp.cli.tables import shown

if TYPE_CHECKING:
    from rich.console import Console

    from layerimp.bench.cells import Cell
    from layerimp.bench.scheduler import Watcher
    from layerimp.bench.work_queue import Tally

QUIET_SECONDS = 30.0
"""At least so long is it quiet between two lines of a log."""


def told(tally: Tally) -> str:
    """How far a grid is, in words."""
    parts = [f"{tally.done} of {tally.known} cells done"]
    parts += [f"{tally.running} running"] if tally.running else []
    parts += [f"{tally.failed} failed"] if tally.failed else []
    parts += [f"{span(tally.seconds_left)} left"] if tally.seconds_left and tally.running else []
    return ", ".join(parts)


def span(seconds: float) -> str:
    """A length of time in words, roughly."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class _Told:
    """Says what failed, whatever else it shows."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def failed(self, cell: Cell, error: str) -> None:
        """One line."""
        self._console.print(shown(f"failed: {cell}: {error}", style="yellow"), soft_wrap=True)


class Log(_Told):
    """Where nobody can see a bar move: a line now and then."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._last: float | None = None

    def update(self, tally: Tally) -> None:
        """A line, if it was quiet for long enough; the first and the last are always said."""
        now = time.monotonic()
        ended = not tally.running and tally.done + tally.failed == tally.known
        if self._last is None or ended or now - self._last >= QUIET_SECONDS:
            self._console.print(shown(told(tally)))
            self._last = now


class Bar(_Told):
    """A bar on a terminal."""

    def __init__(self, console: Console, progress: Progress) -> None:
        super().__init__(console)
        self._progress = progress
        self._task = progress.add_task("start the workers", total=None)

    def update(self, tally: Tally) -> None:
        """Move it."""
        ended = tally.done + tally.failed
        self._progress.update(self._task, description=told(tally), completed=ended, total=tally.known)


@contextmanager
def watching(console: Console) -> Iterator[Watcher]:
    """Somebody who tells a console how far a grid is."""
    if not console.is_terminal:
        yield Log(console)
        return
    columns = (BarColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        yield Bar(console, progress)

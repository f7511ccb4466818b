"""Shows the progress of a grid: a live line on a terminal, occasional lines in a log."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from layerimp.cli.columns import shown

if TYPE_CHECKING:
    from rich.console import Console

    from layerimp.bench.cells import Cell
    from layerimp.bench.scheduler import Watcher
    from layerimp.bench.work_queue import Tally

QUIET_SECONDS = 30.0
"""The least time in seconds between two lines in a log."""


def told(tally: Tally) -> str:
    """Describe the progress of a grid in words."""
    parts = [f"{tally.done} of {tally.known} cells done"]
    parts += [f"{tally.running} running"] if tally.running else []
    parts += [f"{tally.failed} failed"] if tally.failed else []
    parts += [f"{span(tally.seconds_left)} left"] if tally.seconds_left and tally.running else []
    return ", ".join(parts)


def span(seconds: float) -> str:
    """Show a length of time, rounded."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Teller:
    """Reports failures and the progress of a grid: by a bar on a terminal, and by occasional lines elsewhere.

    Args:
        console: The console to report on.
        bar: The progress bar for a terminal.
    """

    def __init__(self, console: Console, bar: Progress) -> None:
        self._console, self._bar = console, bar
        self._task = bar.add_task("start the workers", total=None)
        self._last = -math.inf

    def update(self, tally: Tally) -> None:
        """Move the bar, or print a line if the last one is long enough ago. The first and last lines always appear."""
        done, now = tally.done + tally.failed, time.monotonic()
        self._bar.update(self._task, description=told(tally), completed=done, total=tally.known)
        ended = not tally.running and done == tally.known
        if not self._console.is_terminal and (ended or now - self._last >= QUIET_SECONDS):
            self._console.print(shown(told(tally)))
            self._last = now

    def failed(self, cell: Cell, error: str) -> None:
        """Report the failure in one line."""
        self._console.print(shown(f"failed: {cell}: {error}", style="yellow"), soft_wrap=True)


@contextmanager
def watching(console: Console) -> Iterator[Watcher]:
    """A context with a watcher that reports the progress of a grid on a console."""
    columns = (BarColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    progress = Progress(*columns, console=console)
    with progress if console.is_terminal else nullcontext():
        yield Teller(console, progress)

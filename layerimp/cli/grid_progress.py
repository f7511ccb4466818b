"""Shows the progress of a grid: a live line on a terminal, lines in a log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from layerimp.bench.scheduler import Watcher
from layerimp.progress import span

if TYPE_CHECKING:
    from layerimp.bench.cells import Cell
    from layerimp.bench.work_queue import Tally
    from layerimp.cli.display import Screen


def _in_words(tally: Tally) -> str:
    """Describe the progress of a grid in words."""
    parts = [f"{tally.done} of {tally.known} cells done"]
    parts += [f"{tally.running} running"] if tally.running else []
    parts += [f"{tally.failed} failed"] if tally.failed else []
    parts += [f"{span(tally.seconds_left)} left"] if tally.seconds_left and tally.running else []
    return ", ".join(parts)


class Teller(Watcher):
    """Reports failures and the progress of a grid: by a bar on a terminal, elsewhere by a first and a last line.

    Args:
        screen: The screen to report on, whose heartbeat says the lines in between.
        bar: The progress bar for a terminal.
    """

    def __init__(self, screen: Screen, bar: Progress) -> None:
        self._screen, self._bar = screen, bar
        bar.add_task("start the workers", total=None)
        (self._task,) = bar.tasks

    def line(self) -> str:
        """The progress, in words."""
        return self._task.description

    def update(self, tally: Tally) -> None:
        """Move the bar, or print the first or the last line."""
        first, done = self._task.total is None, tally.done + tally.failed
        self._bar.update(self._task.id, description=_in_words(tally), completed=done, total=tally.known)
        last = not tally.running and done == tally.known
        if not self._screen.err.is_terminal and (first or last):
            self._screen.say(self.line())

    def failed(self, cell: Cell, error: str) -> None:
        """Report the failure in one line."""
        self._screen.say(f"failed: {cell}: {error}", style="yellow")


@contextmanager
def watching(screen: Screen) -> Iterator[Watcher]:
    """A context with a watcher that reports the progress of a grid on a screen."""
    columns = (BarColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    progress = Progress(*columns, console=screen.err)
    screen.show_notes()
    with progress if screen.err.is_terminal else nullcontext():
        teller = Teller(screen, progress)
        with screen.heartbeat.about(teller.line):
            yield teller

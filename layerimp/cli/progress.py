"""What a command is doing, on stderr: bars on a terminal, and short lines in a log."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING

from rich.filesize import decimal
from rich.progress import BarColumn, ProgressColumn, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text

from layerimp.bench.watcher import Watcher
from layerimp.cli.tables import shown
from layerimp.progress import span

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from rich.console import Console

    from layerimp.bench.cells import Cell
    from layerimp.bench.work_queue import Tally
    from layerimp.progress import Advance

QUIET_SECONDS = 30.0
"""How long a log gets no line before one says what is under way, in seconds."""


class Reporter:
    """Shows the stages of the work on stderr: a line for each that is done, and a bar for each that is under way.

    Where there is no terminal, a context has no bars, but lines whenever nothing was said for a while. In a context,
    notes wait until something else is shown, so that an error that is found before any work is the only line.

    Args:
        err: The console.
        clock: Gives the time in seconds.
    """

    def __init__(self, err: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self.err = err
        self._clock = clock
        self._began = self._said = clock()
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), _Done())
        times = (TimeElapsedColumn(), TimeRemainingColumn())
        # The time left follows from the speed since the first report, which may count the work of an interrupted run.
        self._bars = Bars(*columns, *times, console=err, get_time=clock, speed_estimate_period=math.inf, transient=True)
        self._waiting: list[str] | None = None
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._waiting = []
        if not self.err.is_terminal:
            self._thread = threading.Thread(target=self._break_silence, name="progress", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        if kind is None:
            self.show_notes()

    def _break_silence(self) -> None:
        while not self._ended.wait(max(self._said + QUIET_SECONDS - self._clock(), 0.0)):
            if self._clock() - self._said >= QUIET_SECONDS:
                self.say(self.under_way())

    def under_way(self) -> str:
        """Say in a line how far the innermost stage is."""
        if not (tasks := self._bars.tasks):
            return f"at work for {_elapsed(self._clock() - self._began)} so far"
        task = tasks[-1]
        parts = [_done(task)] if task.total else []
        parts.append(f"{_elapsed(task.elapsed or 0.0)} so far")
        parts += [f"about {span(task.time_remaining)} left"] if task.time_remaining else []
        return f"{task.description}: {', '.join(parts)}"

    def say(self, line: str, style: str = "") -> None:
        """Print one line."""
        self.show_notes()
        with suppress(OSError):  # a log on a full disk is no reason to lose the work
            self.err.print(shown(line, style=style), soft_wrap=True)
        self._said = self._clock()

    def note(self, text: str) -> None:
        """Print one line, at once or, while nothing else was shown, later."""
        if self._waiting is None:
            self.say(f"note: {text}", style="yellow")
        else:
            self._waiting.append(text)

    def show_notes(self) -> None:
        """Print the notes that wait, and from now on others at once."""
        waiting, self._waiting = self._waiting, None
        for text in waiting or ():
            self.note(text)

    @contextmanager
    def stage(self, description: str, total: int | None = None, *, unit: str = "") -> Iterator[Advance]:
        """Show a stage of the work; see `layerimp.progress.Progress.stage`."""
        with self._task(description, total, unit) as task:
            yield lambda units: self._bars.advance(task.id, units)
            seconds = task.elapsed or 0.0
        self.say(f"{description}: {seconds:.1f} s")

    @contextmanager
    def grid(self) -> Iterator[Watcher]:
        """Show the progress of a grid, which its watcher is told."""
        with self._task("compute the cells", None, "cells") as task:
            yield _Grid(self, self._bars, task)
        self.say(task.description)

    @contextmanager
    def _task(self, description: str, total: int | None, unit: str) -> Iterator[Task]:
        """A context with a bar, which takes in the bars of stages inside."""
        self.show_notes()
        number = self._bars.add_task(shown(description).plain, total=total, unit=unit)
        if self.err.is_terminal:
            self._bars.start()
        try:
            yield next(task for task in self._bars.tasks if task.id == number)
        finally:
            self._bars.remove_task(number)
            if not self._bars.tasks and self.err.is_terminal:
                self._bars.stop()


class _Grid(Watcher):
    """Shows how many cells of a grid are done, and which failed."""

    def __init__(self, reporter: Reporter, bars: Bars, task: Task) -> None:
        self._reporter, self._bars, self._task = reporter, bars, task

    def update(self, tally: Tally) -> None:
        """Take the new state; see `Watcher.update`."""
        first, done = self._task.total is None, tally.done + tally.failed
        counts = f"{tally.done} of {tally.known} cells done"
        others = {"running": tally.running, "failed": tally.failed}
        described = ", ".join([counts, *(f"{count} {state}" for state, count in others.items() if count)])
        self._bars.update(self._task.id, description=described, completed=done, total=tally.known)
        if first:
            self._reporter.say(described)

    def failed(self, cell: Cell, error: str) -> None:
        """Report a failure in one line."""
        self._reporter.say(f"failed: {cell}: {error}", style="yellow")


class _Done(ProgressColumn):
    """How much of a stage is done."""

    def render(self, task: Task) -> Text:
        """Return it in words."""
        return Text(_done(task) if task.total else "")


def _done(task: Task) -> str:
    """Say how many units of a stage are done."""
    done, total, unit = int(task.completed), int(task.total or 0), task.fields["unit"]
    if unit == "bytes":
        return f"{decimal(done)} of {decimal(total)}"
    return f"{done}%" if unit == "%" else f"{done:,} of {total:,} {unit}".rstrip()


def _elapsed(seconds: float) -> str:
    """Show a length of time to the second, so that two lines in succession differ."""
    return str(timedelta(seconds=round(seconds)))

"""Lines that say how far a command is, where no terminal shows a bar: one whenever nothing was said for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import TYPE_CHECKING, Any

from layerimp.progress import span

if TYPE_CHECKING:
    from typing import Self

    from layerimp.progress import Advance

QUIET_SECONDS = 30.0
"""How long nothing is said before a line follows, in seconds."""

Clock = Callable[[], float]
"""Gives the time in seconds."""


class Heartbeat:
    """Says how far the work is whenever nothing was said for a while, even in the middle of a single unit of work.

    A thread wakes for it. As a context, it ends the thread however the context is left.

    Args:
        quiet: How long nothing is said before a line follows, in seconds.
        clock: The clock.
    """

    def __init__(self, quiet: float = QUIET_SECONDS, clock: Clock = time.monotonic) -> None:
        self._quiet, self._clock = quiet, clock
        self._began = self._last = clock()
        self._latest = ""
        self._under_way: list[Callable[[], str]] = []
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def start(self, say: Callable[[str], None]) -> None:
        """Begin to say lines, unless the context was left already."""
        if self._thread is None and not self._ended.is_set():
            self._thread = threading.Thread(target=self._run, args=(say,), name="heartbeat", daemon=True)
            self._thread.start()

    def _run(self, say: Callable[[str], None]) -> None:
        while not self._ended.wait(self._until_next()):
            if (line := self.due()) is not None:
                say(line)

    def _until_next(self) -> float:
        return max(self._last + self._quiet - self._clock(), 0.0)

    def due(self) -> str | None:
        """Return the line to say now; None if the last one is not long enough ago."""
        if self._until_next() > 0:
            return None
        self.note_line()
        try:
            return self._under_way[-1]()
        except IndexError:
            after = f" (last: {self._latest})" if self._latest else ""
            return f"at work for {_elapsed(self._clock() - self._began)} so far{after}"

    def note_line(self, what: str = "") -> None:
        """Take note that a line was said, and what it was about if it was no heartbeat."""
        self._last, self._latest = self._clock(), what or self._latest

    @contextmanager
    def about(self, line: Callable[[], str]) -> Iterator[None]:
        """A context in which the lines are those of a function."""
        self._under_way.append(line)
        try:
            yield
        finally:
            self._under_way.remove(line)

    @contextmanager
    def stage(self, description: str, total: int | None, unit: str, unit_bytes: int) -> Iterator[Advance]:
        """A context in which the lines are about a stage; see `layerimp.progress.Progress.stage`."""
        began, done = self._clock(), 0
        first: tuple[float, int] | None = None

        def advance(units: int) -> None:
            nonlocal done, first
            done += units
            if done and first is None:
                first = self._clock(), done

        def line() -> str:
            seconds = self._clock() - began
            parts = [_far(done, total, unit, unit_bytes)] if total else []
            parts.append(f"{_elapsed(seconds)} so far")
            if total and first and done < total:
                # What is done at first may be the work of an interrupted run.
                since, already = first if done > first[1] else (began, 0)
                left = (self._clock() - since) / (done - already) * (total - done)
                parts.append(f"about {span(left)} left")
            return f"{description}: {', '.join(parts)}"

        with self.about(line):
            yield advance


def _elapsed(seconds: float) -> str:
    """Show a length of time to the second, so that two lines in succession differ."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _far(done: int, total: int, unit: str, unit_bytes: int) -> str:
    """Tell how many units are done."""
    if unit == "%":
        return f"{done}%"
    if unit_bytes == 1:
        from rich.filesize import decimal  # not for a completion in the shell, which has to be quick

        return f"{decimal(done)} of {decimal(total)}"
    return f"{done:,} of {total:,} {unit}".rstrip()


_OF_COMMAND: ContextVar[Heartbeat | None] = ContextVar("heartbeat", default=None)


def heartbeat() -> Heartbeat:
    """Return the heartbeat of the command that runs; outside of commands, one that never starts."""
    if (known := _OF_COMMAND.get()) is not None:
        return known
    with Heartbeat() as ended:
        return ended


def beating(command: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a command so that its heartbeat, once started, ends with the command, after an error or Ctrl-C too."""

    @wraps(command)
    def kept(*arguments: Any, **options: Any) -> Any:
        with Heartbeat() as own:
            before = _OF_COMMAND.set(own)
            try:
                return command(*arguments, **options)
            finally:
                _OF_COMMAND.reset(before)

    return kept

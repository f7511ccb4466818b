"""Lines that say how far a command is, where no terminal shows a bar: one whenever nothing was said for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

QUIET_SECONDS = 30.0
"""How long nothing is said before a line follows, in seconds."""

Clock = Callable[[], float]
"""Gives the time in seconds."""


class Heartbeat:
    """Says how far the work is whenever nothing was said for a while, even in the middle of a single unit of work.

    A thread wakes for it.

    Args:
        quiet: How long nothing is said before a line follows, in seconds.
        clock: The clock.

    Attributes:
        clock: The clock.
    """

    def __init__(self, quiet: float = QUIET_SECONDS, clock: Clock = time.monotonic) -> None:
        self._quiet, self.clock = quiet, clock
        self._began = self._last = clock()
        self._under_way: list[Callable[[], str]] = []
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, say: Callable[[str], None]) -> None:
        """Begin to say lines."""
        self._thread = threading.Thread(target=self._run, args=(say,), name="heartbeat", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Say no more lines."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self, say: Callable[[str], None]) -> None:
        while not self._ended.wait(self._until_next()):
            if (line := self.due()) is not None:
                say(line)

    def _until_next(self) -> float:
        return max(self._last + self._quiet - self.clock(), 0.0)

    def due(self) -> str | None:
        """Return the line to say now; None if the last one is not long enough ago."""
        if self._until_next() > 0:
            return None
        self.note_line()
        try:
            return self._under_way[-1]()
        except IndexError:
            return f"at work for {elapsed(self.clock() - self._began)} so far"

    def note_line(self) -> None:
        """Take note that a line was said."""
        self._last = self.clock()

    @contextmanager
    def about(self, line: Callable[[], str]) -> Iterator[None]:
        """A context in which the lines are those of a function."""
        self._under_way.append(line)
        try:
            yield
        finally:
            self._under_way.remove(line)


def elapsed(seconds: float) -> str:
    """Show a length of time to the second, so that two lines in succession differ."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"

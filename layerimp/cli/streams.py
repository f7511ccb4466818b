"""Keeps stdout for results: what a plugin or a library prints there goes to stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from pathlib import Path
from typing import TextIO

from layerimp.errors import OutputError

_RESULTS: ContextVar[TextIO | None] = ContextVar("results", default=None)


def results() -> TextIO:
    """Return the stream for a command's results: stdout as it was when the command began."""
    return _RESULTS.get() or sys.stdout


@contextmanager
def for_results_alone() -> Iterator[None]:
    """A context in which `print` goes to stderr, and only `results` reaches stdout."""
    before = _RESULTS.set(sys.stdout)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _RESULTS.reset(before)


@contextmanager
def after_writing(path: Path | str | None = None) -> Iterator[None]:
    """A context for printing results that may also be written to `path`, which the error names if printing fails.

    Raises:
        OutputError: stdout cannot be written.
    """
    try:
        yield
        results().flush()
    except OSError as error:
        # What is left in the buffer cannot be written when Python exits, either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), results().fileno())
        kept = "" if path is None else f"; what was computed is written in {path}"
        raise OutputError(f"cannot write to stdout: {error.strerror}{kept}") from None

"""Keeps stdout for results: anything else that a plugin or a library prints there goes to stderr."""

from __future__ import annotations

import atexit
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TextIO

from layerimp.errors import OutputError

_OUT, _ERR = 1, 2
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
def after_writing(path: Path | str | None) -> Iterator[None]:
    """A context for printing results that are also written to `path`, which the error names if printing fails.

    Raises:
        OutputError: stdout cannot be written.
    """
    try:
        yield
        results().flush()
    except OutputError as error:
        raise error if path is None else OutputError(f"{error}; what was computed is written in {path}") from None


@contextmanager
def stdout_apart() -> Iterator[None]:
    """A context in which only `sys.stdout` reaches stdout; what is written to file descriptor 1 goes to stderr.

    This includes output of C libraries and child processes, and output that is written while Python exits. A stream
    that was closed when the program began leads to the null device, so that no other file gets its number.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - as long as the process lives
    stdout, encoding, kept = sys.stdout, sys.stdout.encoding, os.dup(_OUT)
    stdout.flush()
    os.dup2(_ERR, _OUT)
    if stdout is sys.__stdout__:  # and no replacement, as in a test
        buffer = io.BufferedWriter(_Stdout(kept, "w", closefd=False))
        sys.stdout = io.TextIOWrapper(buffer, encoding=encoding, errors="backslashreplace")
    try:
        yield
    finally:
        with suppress(OutputError):
            sys.stdout.flush()
        sys.stdout = stdout
        stdout.flush()
        os.dup2(kept, _OUT)
        os.close(kept)
        atexit.register(os.dup2, _ERR, _OUT)


class _Stdout(io.FileIO):
    """The file descriptor of stdout. The first failed write is an error of one line; later writes are dropped."""

    _failed = False

    def write(self, data: Any, /) -> int:
        """Write bytes.

        Raises:
            OutputError: the bytes cannot be written.
        """
        if self._failed:
            return memoryview(data).nbytes
        try:
            return super().write(data)
        except OSError as error:
            self._failed = True
            raise OutputError(f"cannot write to stdout: {error.strerror}") from None

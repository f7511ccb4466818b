"""Keeps stdout for results: anything else that a plugin or a library prints there goes to stderr."""

from __future__ import annotations

import atexit
import ctypes
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
    _open_what_is_closed()
    stdout, stderr, kept = sys.stdout, sys.stderr, os.dup(_OUT)
    stdout.flush()
    os.dup2(_ERR, _OUT)
    if _is_on(stdout, _OUT):
        buffer = io.BufferedWriter(_Descriptor(kept, needed=True))
        sys.stdout = io.TextIOWrapper(buffer, encoding=stdout.encoding, errors="backslashreplace")
    if _is_on(stderr, _ERR):
        shown = io.BufferedWriter(_Descriptor(_ERR, needed=False))
        sys.stderr = io.TextIOWrapper(shown, encoding=stderr.encoding, errors="backslashreplace", line_buffering=True)
    try:
        yield
    finally:
        with suppress(OutputError):
            sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = stdout, stderr
        _flush_others(stdout)
        os.dup2(kept, _OUT)
        os.close(kept)
        atexit.unregister(_end)
        atexit.register(_end)


class _Descriptor(io.FileIO):
    """A file descriptor. The first failed write is an error of one line; later writes are silently dropped.

    Args:
        number: The number of the descriptor.
        needed: Whether a failed write is an error; otherwise it is silently dropped.
    """

    def __init__(self, number: int, *, needed: bool) -> None:
        super().__init__(number, "w", closefd=False)
        self._needed, self._failed = needed, False

    def write(self, data: Any, /) -> int:
        """Write bytes.

        Raises:
            OutputError: the bytes cannot be written.
        """
        if not self._failed:
            try:
                return super().write(data)
            except OSError as error:
                self._failed = True
                if self._needed:
                    raise OutputError(f"cannot write to stdout: {error.strerror}") from None
        return memoryview(data).nbytes


def _open_what_is_closed() -> None:
    """Connect closed standard streams to the null device."""
    for number in (0, _OUT, _ERR):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest free number
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - as long as the process lives


def _is_on(stream: TextIO, number: int) -> bool:
    """Whether a stream is the real one with that number, and not a replacement as in a test or a notebook."""
    try:
        return stream.fileno() == number
    except (OSError, ValueError, AttributeError):
        return False


def _flush_others(stdout: TextIO) -> None:
    """Flush what plugins and libraries have written to file descriptor 1 and still buffer."""
    for stream in filter(None, (stdout, sys.__stdout__)):
        with suppress(OSError, ValueError, AttributeError):  # a replacement for stdout may not be a file
            stream.flush()
    if os.name == "posix":
        ctypes.CDLL(None).fflush(None)


def _end() -> None:
    """Send everything that is printed from now on to stderr."""
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        os.dup2(_ERR, _OUT)

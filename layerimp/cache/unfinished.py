"""The state of unfinished work, from which the same command continues after an interruption."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout
from rich.filesize import decimal

from layerimp._paths import PARTIAL
from layerimp.cache.directory import ABOUT, cache_directory, entries

_LOCK = "lock"


class Unfinished:
    """The directories in which the parts of a command keep their state; a context manager.

    Each is named by a hash of everything that determines the result, so that the same work finds it again. At the end
    of the context, all of them are removed if there was no error, because the state is no longer needed. After an error
    only empty ones are removed. An interrupt gets a note on what is kept.
    """

    def __init__(self) -> None:
        self._held: dict[Path, FileLock] = {}

    def __enter__(self) -> Unfinished:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove(
            directory
            for directory in self.held
            if kind is None or {entry.name for entry in directory.iterdir()} <= {ABOUT, _LOCK}
        )
        kept = self.held
        for lock in self._held.values():
            lock.release()
        self._held.clear()
        if kept and isinstance(error, KeyboardInterrupt):
            size = sum(entry.size for entry in entries("unfinished") if entry.path in kept)
            error.add_note(
                f"the same command goes on from the last saved state, which takes {decimal(size)} in the cache "
                "(layerimp cache --clear unfinished removes it)"
            )

    @property
    def held(self) -> frozenset[Path]:
        """The directories that are in use."""
        return frozenset(self._held)

    def remove(self, directories: Iterable[Path]) -> None:
        """Remove some of the directories, whose state is no longer needed."""
        for directory in directories:
            shutil.rmtree(directory, ignore_errors=True)
            self._held.pop(directory).release()

    def directory(self, content: Mapping[str, Any], about: str) -> Path | None:
        """Return the directory for some work, which may hold the state of an earlier run.

        Args:
            content: Everything that determines the result of the work, as plain data.
            about: The description that `layerimp cache` shows.

        Returns:
            The directory; None if it cannot be written, or if another process is doing the same work.
        """
        key = json.dumps(content, sort_keys=True).encode()
        directory = cache_directory("unfinished") / hashlib.blake2b(key, digest_size=20).hexdigest()
        if directory in self._held:
            return directory
        lock = FileLock(directory / _LOCK)
        try:
            directory.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
            for partial in directory.glob(f"{PARTIAL}*"):  # a process was killed while it wrote
                shutil.rmtree(partial, ignore_errors=True)
            (directory / ABOUT).write_text(about, encoding="utf-8")
        except (OSError, Timeout):
            lock.release()
            return None
        self._held[directory] = lock
        return directory


def in_use(directory: Path) -> bool:
    """Whether a process, possibly this one, is using a directory."""
    if not directory.is_dir():
        return False  # taking the lock would create the directory
    try:
        with FileLock(directory / _LOCK).acquire(timeout=0):
            return False
    except Timeout:
        return True

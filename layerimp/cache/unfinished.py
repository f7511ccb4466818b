"""Where long work keeps its state, so that the same command goes on with it after an interruption."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from layerimp.cache.directory import ABOUT, cache_directory

_LOCK = "lock"


class Unfinished:
    """The directories in which the parts of a command keep their state; a context manager.

    Each is named by a hash of everything that decides what the work comes to, so that the same work finds it again.
    All of them are removed when the context is left without an error: what was kept is only of use until then. With an
    error those are removed in which nothing was kept.
    """

    def __init__(self) -> None:
        self._held: dict[Path, FileLock] = {}

    def __enter__(self) -> Unfinished:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for directory, lock in self._held.items():
            if kind is None or {one.name for one in directory.iterdir()} <= {ABOUT, _LOCK}:
                shutil.rmtree(directory, ignore_errors=True)
            lock.release()
        self._held.clear()

    def directory(self, content: Mapping[str, Any], about: str) -> Path | None:
        """The directory of some work, which may hold what an earlier run has kept.

        Args:
            content: All that decides what the work comes to, as plain data.
            about: What a reader of `layerimp cache` sees.

        Returns:
            The directory; None where nothing can be written, or another process is at the same work.
        """
        key = json.dumps(content, sort_keys=True).encode()
        directory = cache_directory("unfinished") / hashlib.blake2b(key, digest_size=20).hexdigest()
        if directory in self._held:
            return directory
        lock = FileLock(directory / _LOCK)
        try:
            directory.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
            (directory / ABOUT).write_text(about, encoding="utf-8")
        except (OSError, Timeout):
            lock.release()
            return None
        self._held[directory] = lock
        return directory


def in_use(directory: Path) -> bool:
    """Whether a process is at the work in a directory, this one among them."""
    if not directory.is_dir():
        return False  # a lock would make it
    try:
        with FileLock(directory / _LOCK).acquire(timeout=0):
            return False
    except Timeout:
        return True

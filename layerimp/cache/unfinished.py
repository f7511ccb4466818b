"""Where long work keeps its state, so that the same command goes on with it after an interruption."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from layerimp.cache.directory import ABOUT, cache_directory

_OWNER = "owner.json"


class Unfinished:
    """The directories in which the parts of a command keep their state; a context manager.

    Each is named by a hash of everything that decides what the work comes to, so that the same work finds it again.
    All of them are removed when the context is left without an error: what was kept is only of use until then. With an
    error those are removed in which nothing was kept.
    """

    def __init__(self) -> None:
        self._given: list[Path] = []

    def __enter__(self) -> Unfinished:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for directory in self._given:
            (directory / _OWNER).unlink(missing_ok=True)
            if kind is None or [one.name for one in directory.iterdir()] == [ABOUT]:
                shutil.rmtree(directory, ignore_errors=True)

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
        if directory in self._given:
            return directory
        if in_use(directory):
            return None
        try:
            directory.mkdir(parents=True, exist_ok=True)
            (directory / ABOUT).write_text(about, encoding="utf-8")
            (directory / _OWNER).write_text(json.dumps(_me()), encoding="utf-8")
        except OSError:
            return None
        self._given.append(directory)
        return directory


def in_use(directory: Path) -> bool:
    """Whether a living process is at the work in a directory, this one among them.

    A process of another machine that shares the directory counts as living: nobody here can know.
    """
    try:
        owner = json.loads((directory / _OWNER).read_text(encoding="utf-8"))
        host, pid, started = owner["host"], owner["pid"], owner["started"]
    except (OSError, ValueError, TypeError, KeyError):
        return False
    if host != socket.gethostname():
        return True
    try:
        return bool(psutil.Process(pid).create_time() == started)
    except (psutil.Error, ValueError, TypeError):
        return False


def _me() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": psutil.Process().create_time()}

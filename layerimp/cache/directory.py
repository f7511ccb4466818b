"""The cache directory: where it is, what it holds, and how it is cleared."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from layerimp._paths import expanded

CACHE_VARIABLE = "LAYERIMP_CACHE"
Kind = Literal["metrics", "unfinished"]
ABOUT = "about.txt"
"""The name of a file that describes the content of its directory."""
KINDS: tuple[Kind, ...] = ("metrics", "unfinished")


def cache_directory(kind: Kind) -> Path:
    """Return the directory for one kind of content, in `$LAYERIMP_CACHE` or else in `~/.cache/layerimp`."""
    return expanded(os.environ.get(CACHE_VARIABLE) or "~/.cache/layerimp") / kind


@dataclass(frozen=True)
class Entry:
    """A file or directory in the cache.

    Attributes:
        kind: The kind of content.
        path: The path.
        size: The size in bytes, including all files of a directory.
        changed: The time of the last write, in seconds since 1970.
        about: A description of the content; empty if there is none.
    """

    kind: Kind
    path: Path
    size: int
    changed: float
    about: str = ""


def entries(kind: Kind) -> list[Entry]:
    """List the cache entries of a kind, the oldest first."""
    listed = []
    directory = cache_directory(kind)
    for path in directory.iterdir() if directory.is_dir() else ():
        with suppress(OSError):  # another run may remove it in the meantime
            stats = [file.stat() for file in (path, *path.rglob("*")) if file.is_file()]
            changed = max((stat.st_mtime for stat in stats), default=path.stat().st_mtime)
            listed.append(Entry(kind, path, sum(stat.st_size for stat in stats), changed, _about(path)))
    return sorted(listed, key=lambda entry: entry.changed)


def _about(path: Path) -> str:
    try:
        return (path / ABOUT).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def clear(kind: Kind, unless: Callable[[Path], bool] = lambda _path: False) -> list[Entry]:
    """Remove the cache entries of a kind that are not in use, and return the removed entries."""
    removed = [entry for entry in entries(kind) if not unless(entry.path)]
    for entry in removed:
        if entry.path.is_dir():
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            entry.path.unlink(missing_ok=True)
    return removed

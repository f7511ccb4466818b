"""The directory of what is kept between runs, what lies there, and clearing it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

CACHE_VARIABLE = "LAYERIMP_CACHE"
Kind = Literal["metrics", "unfinished"]
ABOUT = "about.txt"
"""The file in a directory that says what is kept there."""
KINDS: tuple[Kind, ...] = ("metrics", "unfinished")


def cache_directory(kind: Kind) -> Path:
    """Where one kind of what is kept lies: below `$LAYERIMP_CACHE`, or else `~/.cache/layerimp`."""
    return Path(os.environ.get(CACHE_VARIABLE) or "~/.cache/layerimp").expanduser() / kind


@dataclass(frozen=True)
class Entry:
    """One file or directory that is kept.

    Attributes:
        kind: What it is.
        path: Where it lies.
        size: Bytes, of all its files.
        changed: When it was last written, in seconds since 1970.
        about: What it is, for a reader; empty where nothing says so.
    """

    kind: Kind
    path: Path
    size: int
    changed: float
    about: str = ""


def entries(kind: Kind) -> list[Entry]:
    """What is kept, the oldest first."""
    found = []
    directory = cache_directory(kind)
    for path in directory.iterdir() if directory.is_dir() else ():
        with suppress(OSError):  # another run may remove it meanwhile
            stats = [one.stat() for one in (path, *path.rglob("*")) if one.is_file()]
            changed = max((stat.st_mtime for stat in stats), default=path.stat().st_mtime)
            found.append(Entry(kind, path, sum(stat.st_size for stat in stats), changed, _about(path)))
    return sorted(found, key=lambda entry: entry.changed)


def _about(path: Path) -> str:
    try:
        return (path / ABOUT).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def clear(kind: Kind, unless: Callable[[Path], bool] = lambda _path: False) -> list[Entry]:
    """Remove what is kept, but for what is in use; gives what was removed."""
    removed = [entry for entry in entries(kind) if not unless(entry.path)]
    for entry in removed:
        if entry.path.is_dir():
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            entry.path.unlink(missing_ok=True)
    return removed

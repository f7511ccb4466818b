"""Paths as a user writes them, and files that are written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

from layerimp.errors import OptionError

LONGEST = 255
"""The most bytes in the name of a file, on the usual file systems."""


def expanded(path: str | Path) -> Path:
    """A path whose `~` is the home that it stands for; that of nobody is a plain name, as in a shell.

    Raises:
        OptionError: a part of the path is too long for the name of a file.
    """
    full = Path(os.path.expanduser(path))
    if any(len(part.encode("utf-8", "surrogatepass")) > LONGEST for part in full.parts):
        raise OptionError(f"{str(path)[:40]!r}... is too long: the name of a file has at most {LONGEST} bytes")
    return full


def last_name(path: str | Path) -> str:
    """The last part of a path or of a model id; for a path such as `.`, the name of the directory that it means."""
    name = Path(path).name
    return Path(path).resolve().name if name in ("", "..") else name


def real(path: str | Path) -> Path:
    """Where a path leads when all links are followed; links that lead to each other stay as they are."""
    return Path(os.path.realpath(path))


def write_whole(path: Path, text: str) -> None:
    """Write a text file, in place of an older one, so that no reader and no interruption sees half of it.

    Raises:
        OSError: the file cannot be written; an older one is then unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as directory:
        new = Path(directory, path.name)
        new.write_text(text, encoding="utf-8")
        new.replace(path)

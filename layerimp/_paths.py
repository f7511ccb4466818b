"""Paths as a user writes them, files that are written whole or not at all, and texts that name no local folder."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import Any

from layerimp.errors import OptionError

LONGEST = 255
"""The most bytes in the name of a file, on the usual file systems."""

PARTIAL = ".partial-"
"""How the name of a directory begins in which a file is being written."""


def expanded(path: str | Path) -> Path:
    """A path whose `~` is the home that it stands for; that of nobody is a plain name, as in a shell.

    Raises:
        OptionError: a part of the path is too long for the name of a file.
    """
    full = Path(os.path.expanduser(path))
    if any(len(os.fsencode(part)) > LONGEST for part in full.parts):
        raise OptionError(f"{str(path)[:40]!r}... is too long: the name of a file has at most {LONGEST} bytes")
    return full


def last_name(path: str | Path) -> str:
    """The last part of a path or of a model id; for a path such as `.`, the name of the directory that it means."""
    name = Path(path).name
    return Path(path).resolve().name if name in ("", "..") else name


def from_here(path: str) -> str:
    """A path from the current folder on, if it lies in there; with `./`, since without it may be an id on the hub."""
    with suppress(OSError, ValueError):  # the folder is gone, or another one
        return f"./{Path(path).relative_to(Path.cwd())}"
    return path


def real(path: str | Path) -> Path:
    """Where a path leads when all links are followed; links that lead to each other stay as they are."""
    return Path(os.path.realpath(path))


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a path to write a file to, which takes the place of an older one only once it is whole.

    No reader and no interruption sees half of it, and an error leaves nothing of it. A process that is killed leaves a
    directory whose name begins with `PARTIAL`.

    Raises:
        OSError: the file cannot be written; an older one is then unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=PARTIAL, dir=path.parent) as directory:
        new = Path(directory, path.name)
        yield new
        new.replace(path)


def write_whole(path: Path, text: str) -> None:
    """Write a text file, in place of an older one; see `whole`.

    Raises:
        OSError: the file cannot be written; an older one is then unchanged.
    """
    with whole(path) as new:
        new.write_text(text, encoding="utf-8")


_FOLDERS = re.compile(r"""(?<=')/(?:[^'/]+/)*(?=[^'/])|(?<![\w.~</-])/(?:[^\s/'"`:;,()<>]+/)*(?=[^\s/])""")


def without_folders(text: str) -> str:
    """Return a text with the absolute paths in it cut to their last part."""
    return _FOLDERS.sub("", text)


def tree_without_folders(
    data: Any, cut: Callable[[str], str] = without_folders, whole: Collection[str] | None = None
) -> Any:
    """Return plain data with every text in it cut by a function.

    Args:
        data: The data.
        cut: The function, of this module or like them.
        whole: The keys of those mappings in it that stay as they are.
    """
    if isinstance(data, str):
        return cut(data)
    if isinstance(data, Mapping):
        if whole and data.keys() == set(whole):
            return data
        return {name: tree_without_folders(value, cut, whole) for name, value in data.items()}
    return [tree_without_folders(value, cut, whole) for value in data] if isinstance(data, Sequence) else data


def last_part(path: str) -> str:
    """Return an absolute path without its folders, spaces and all, and any other name unchanged."""
    return PurePath(path).name if PurePath(path).is_absolute() else path

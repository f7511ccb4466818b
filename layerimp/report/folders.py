"""Cuts absolute paths to their last part: pages and model cards are passed on, and must not name local folders."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

_FOLDERS = re.compile(r"""(?<=')/(?:[^'/]+/)*(?=[^'/])|(?<![\w.~</-])/(?:[^\s/'"`:;,()<>]+/)*(?=[^\s/])""")


def without_folders(text: str) -> str:
    """Return a text with the absolute paths in it cut to their last part."""
    return _FOLDERS.sub("", text)


def tree_without_folders(data: Any, cut: Callable[[str], str] = without_folders) -> Any:
    """Return plain data with every text in it cut by a function of this module."""
    if isinstance(data, str):
        return cut(data)
    if isinstance(data, Mapping):
        return {name: tree_without_folders(value, cut) for name, value in data.items()}
    return [tree_without_folders(value, cut) for value in data] if isinstance(data, Sequence) else data


def last_part(path: str) -> str:
    """Return an absolute path without its folders, spaces and all, and any other name unchanged."""
    return PurePath(path).name if PurePath(path).is_absolute() else path

"""How the report says numbers and names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from layerimp.report.tables import named

MINUS = "\N{MINUS SIGN}"


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def count(value: int) -> str:
    """A count, its digits in groups that no line break parts."""
    return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def listed(names: Iterable[str]) -> str:
    """Names in a sentence."""
    *first, last = list(names) or ["none"]
    return f"{', '.join(first)} and {last}" if first else last


def unbroken(ratio: float) -> str:
    """A ratio as people say it, on one line."""
    return named(ratio).replace(" ", "\N{NO-BREAK SPACE}")


_FOLDERS = re.compile(r"""(?<=')/(?:[^'/]+/)*(?=[^'/])|(?<![\w.~</-])/(?:[^\s/'"`:;,()<>]+/)*(?=[^\s/])""")


def without_folders(text: str) -> str:
    """A text in which absolute paths are cut to their last part: a page is passed on, and need not tell of a home."""
    return _FOLDERS.sub("", text)


def tree_without_folders(data: Any) -> Any:
    """Plain data in which all text is without folders."""
    if isinstance(data, str):
        return without_folders(data)
    if isinstance(data, Mapping):
        return {name: tree_without_folders(value) for name, value in data.items()}
    return [tree_without_folders(value) for value in data] if isinstance(data, Sequence) else data


def last_part(path: str) -> str:
    """An absolute path without its folders; any other name as it is."""
    return PurePath(path).name if PurePath(path).is_absolute() else path


def signed(value: float, how: str) -> str:
    """A number whose minus sign is as wide as its plus sign."""
    return f"{value:{how}}".replace("-", MINUS)

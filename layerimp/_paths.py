"""Paths as a user writes them."""

from __future__ import annotations

import os
from pathlib import Path


def expanded(path: str | Path) -> Path:
    """A path whose `~` is the home that it stands for; that of nobody is a plain name, as in a shell."""
    return Path(os.path.expanduser(path))


def real(path: str | Path) -> Path:
    """Where a path leads when all links are followed; links that lead to each other stay as they are."""
    return Path(os.path.realpath(path))

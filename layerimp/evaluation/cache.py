"""Stores an intact model's metrics under a hash of everything that can change them."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from typing import TYPE_CHECKING

from layerimp._paths import write_whole
from layerimp.cache.directory import cache_directory
from layerimp.evaluation.packing import packed, unpacked

if TYPE_CHECKING:
    from pathlib import Path

    from layerimp.metric import Metric

FORMAT = "compressed"
"""The version in every key: metrics in another format are measured again."""


def stored(*parts: str) -> list[Metric] | None:
    """Return the metrics under the key made of `parts`, or None."""
    try:
        return unpacked(json.loads(_path(*parts).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, AttributeError, LookupError):
        return None


def store(metrics: list[Metric], *parts: str) -> None:
    """Store metrics under the key made of `parts`. If the cache cannot be written, this is not an error."""
    document = json.dumps(packed(metrics))
    with suppress(OSError):
        write_whole(_path(*parts), document)


def _path(*parts: str) -> Path:
    """Return the path of the JSON file for a key."""
    key = json.dumps((FORMAT, *parts)).encode()
    return cache_directory("metrics") / f"{hashlib.blake2b(key, digest_size=20).hexdigest()}.json"

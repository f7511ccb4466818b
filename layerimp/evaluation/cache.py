"""Stores an intact model's metrics under a hash of everything that can change them."""

from __future__ import annotations

import hashlib
import json
import tempfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from layerimp._paths import expanded
from layerimp.cache.directory import cache_directory
from layerimp.defaults import ORIGINAL
from layerimp.evaluation.packing import packed, unpacked

if TYPE_CHECKING:
    from layerimp.evaluator import Evaluator, Metric

FORMAT = "hashes"
"""The version in every key. Older entries, without documents' values or hashes, are measured again."""


def kept_as(evaluator: Evaluator, who: str) -> str | None:
    """Return an evaluator's part of the key under which its metrics are stored.

    None if the metrics are not stored: for a pruned model, for costs, and for an evaluator without a fingerprint.
    """
    return evaluator.fingerprint() if who == ORIGINAL and evaluator.kind == "quality" else None


class MetricsCache:
    """The stored metrics of intact models, one JSON file per key.

    Args:
        directory: The directory of the files; by default that of `cache_directory`.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = cache_directory("metrics") if directory is None else expanded(directory) / "metrics"

    def _path(self, *parts: str) -> Path:
        key = json.dumps((FORMAT, *parts)).encode()
        return self.directory / f"{hashlib.blake2b(key, digest_size=20).hexdigest()}.json"

    def get(self, *parts: str) -> list[Metric] | None:
        """Return the metrics under the key made of `parts`, or None."""
        try:
            return unpacked(json.loads(self._path(*parts).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, AttributeError, LookupError, zlib.error):
            return None

    def put(self, metrics: list[Metric], *parts: str) -> None:
        """Store metrics. If the cache cannot be written, nothing is stored; this is not an error."""
        path = self._path(*parts)
        document = json.dumps(packed(metrics))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=path.parent) as directory:
                Path(directory, path.name).write_text(document, encoding="utf-8")
                Path(directory, path.name).replace(path)
        except OSError:
            return

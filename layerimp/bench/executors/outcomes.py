"""The outcomes of cells: of a scoring whose shards were read by several workers, and of a failure."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from layerimp.bench.cells import Outcome
from layerimp.errors import LayerimpError, one_line
from layerimp.scoring.engine import Filled, finished

Shard = tuple[Filled, Mapping[str, Any]]
"""A scorer that has seen a shard, and the other fields of its result."""


def scored(key: str, label: str, shards: Sequence[Shard]) -> Outcome:
    """Return the outcome of a scoring from all of its shards."""
    try:
        importance = finished(label, [filled for filled, _ in shards])
    except Exception as error:
        return failure(key, error)
    return Outcome(key, {**asdict(importance), **shards[0][1]})


def as_bytes(filled: Filled, shared: Mapping[str, Any]) -> bytes:
    """Pickle a shard, to send it to the process that merges the shards."""
    file = io.BytesIO()
    torch.save((filled, dict(shared)), file)
    return file.getvalue()


def from_bytes(content: bytes) -> Shard:
    """Unpickle a shard that one of this grid's workers sent, onto the CPU."""
    shard: Shard = torch.load(io.BytesIO(content), map_location="cpu", weights_only=False)
    return shard


def failure(key: str, error: BaseException, *, again: bool = False) -> Outcome:
    """Return the outcome of a failed cell, which `again` has tried again.

    Of other errors, only those that layerimp raises deliberately are sure to recur.
    """
    ours = isinstance(error, LayerimpError)
    text = " ".join(str(error).split()) if ours else one_line(error)
    return Outcome(key, error=text, lasting=ours and not again)

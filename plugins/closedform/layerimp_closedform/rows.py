"""Which rows of a text the repairs are fitted on, and which rows the repaired models are measured on."""

from __future__ import annotations

import zlib
from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING

import torch
from torch.nn.utils.rnn import pad_sequence

from layerimp.errors import CalibrationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import Tensor

    from layerimp.sweep import Batch


def split_rows(batches: Iterable[Batch], measured: int, tokens: int) -> tuple[list[Batch], list[Batch]]:
    """Split a text into batches to measure on and batches to fit on, as large as the largest batch of the text.

    Which rows are measured follows from their content, and not from their order.

    Args:
        batches: The text, padded on the right.
        measured: How many rows are measured; half of the rows at most.
        tokens: The rows to fit on have so many tokens in all, or are all others.

    Raises:
        CalibrationError: there is only one row.
    """
    rows: list[Mapping[str, Tensor]] = []
    size = 1
    for batch in batches:
        lengths = batch["attention_mask"].sum(dim=1).tolist()
        size = max(size, len(lengths))
        for number, length in enumerate(lengths):
            row = {"input_ids": batch["input_ids"][number, :length]}
            rows.append(row | ({"labels": batch["labels"][number]} if "labels" in batch else {}))
    if len(rows) < 2:
        raise CalibrationError("two rows of text are needed, one to fit repairs on and one to measure them on; got one")
    rows.sort(key=_order)
    measured = min(measured, len(rows) // 2)

    def batched(part: Sequence[Mapping[str, Tensor]]) -> list[Batch]:
        return [_batch(part[start : start + size]) for start in range(0, len(part), size)]

    sums = list(accumulate(len(row["input_ids"]) for row in rows[measured:]))
    fitted = 1 + bisect_left(sums, tokens)
    return batched(rows[:measured]), batched(rows[measured : measured + fitted])


def _order(row: Mapping[str, Tensor]) -> tuple[int, list[int]]:
    ids = row["input_ids"].tolist()
    return zlib.crc32(str(ids).encode()), ids


def _batch(rows: Sequence[Mapping[str, Tensor]]) -> Batch:
    """Return rows as a batch, padded on the right."""
    ids = [row["input_ids"] for row in rows]
    batch = {
        "input_ids": pad_sequence(ids, batch_first=True),
        "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
    }
    return batch | ({"labels": torch.stack([row["labels"] for row in rows])} if "labels" in rows[0] else {})

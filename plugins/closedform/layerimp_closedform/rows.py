"""Which rows of a text the repairs are fitted on, and which rows the repaired models are measured on."""

from __future__ import annotations

import zlib
from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING

from layerimp.blocks import join_rows, rows_of
from layerimp.errors import CalibrationError

if TYPE_CHECKING:
    from collections.abc import Iterable

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
    rows: list[Batch] = []
    size = 1
    for batch in batches:
        size = max(size, len(batch["input_ids"]))
        rows += rows_of(batch)
    if len(rows) < 2:
        raise CalibrationError("two rows of text are needed, one to fit repairs on and one to measure them on; got one")
    rows.sort(key=_order)
    measured = min(measured, len(rows) // 2)
    sums = list(accumulate(row["input_ids"].numel() for row in rows[measured:]))
    fitted = 1 + bisect_left(sums, tokens)
    return list(join_rows(rows[:measured], size)), list(join_rows(rows[measured : measured + fitted], size))


def _order(row: Batch) -> tuple[int, list[int]]:
    ids = row["input_ids"][0].tolist()
    return zlib.crc32(str(ids).encode()), ids

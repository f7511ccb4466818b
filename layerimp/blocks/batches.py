"""Divides batches into rows, and joins rows to batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

Batch = dict[str, Tensor]
"""`input_ids` and `attention_mask`, both [batch, seq]; for a classifier also `labels` [batch], if they are known."""


def chosen_rows(batch: Batch, rows: Tensor) -> Batch:
    """Return a batch with only some of its rows, of which there is at least one.

    Args:
        batch: The batch.
        rows: A boolean [batch].
    """
    if len(rows) == 1:
        return batch
    return {name: value[rows.to(value.device)] for name, value in batch.items()}


def rows_of(batch: Batch) -> Iterator[Batch]:
    """Yield the rows of a batch, padded on the right, as batches of one row without padding."""
    for number, length in enumerate(batch["attention_mask"].sum(dim=1).tolist()):
        row = {name: value[number : number + 1] for name, value in batch.items()}
        yield {name: value[:, :length] if value.ndim > 1 else value for name, value in row.items()}


def join_rows(rows: Iterable[Batch], size: int) -> Iterator[Batch]:
    """Join rows, given as batches of one row, to batches of at most `size` rows, padded on the right with zeros.

    Rows with labels are not joined to those without.
    """
    waiting: list[Batch] = []
    for row in rows:
        if waiting and waiting[0].keys() != row.keys():
            yield _padded(waiting)
            waiting = []
        waiting.append(row)
        if len(waiting) == size:
            yield _padded(waiting)
            waiting = []
    if waiting:
        yield _padded(waiting)


def _padded(rows: Sequence[Batch]) -> Batch:
    columns = {name: [row[name][0] for row in rows] for name in rows[0]}
    return {
        name: pad_sequence(values, batch_first=True) if values[0].ndim else torch.stack(values)
        for name, values in columns.items()
    }

"""Divides batches into rows, and joins rows to batches.

A row with images is a batch of its own: in many models the tensors of all images of a batch are joined, so that they
could not be told apart by row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

Batch = dict[str, Tensor]
"""`input_ids` and `attention_mask`, both [batch, seq]; for a classifier also `labels` [batch], if they are known.

A row with images is a batch of its own, with what the model's processor makes of them, such as `pixel_values`."""
SCORED = "scored"
"""The name under which a batch holds which tokens scorers read [batch, seq], if these are not all real ones."""
_BY_ROW = frozenset({"input_ids", "attention_mask", "labels", SCORED})


def holds_images(names: Iterable[str]) -> bool:
    """Whether a batch, or some names of tensors, hold pixels."""
    return any("pixel" in name for name in names)


def image_inputs(batch: Mapping[str, Tensor]) -> Batch:
    """Return the arguments of a model's forward that images add to a batch; empty without images."""
    return {name: value for name, value in batch.items() if name not in _BY_ROW} if holds_images(batch) else {}


def without_images(batch: Mapping[str, Tensor]) -> Batch:
    """Return a batch as text alone: its token ids are those of the text and of the places of images."""
    return {name: value for name, value in batch.items() if name in _BY_ROW}


def scored_tokens(batch: Mapping[str, Tensor]) -> Tensor:
    """Return which tokens of a batch scorers read, a boolean [batch, seq]: never padding."""
    return batch.get(SCORED, batch["attention_mask"]).bool()


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
    if holds_images(batch):
        yield batch
        return
    for number, length in enumerate(batch["attention_mask"].sum(dim=1).tolist()):
        row = {name: value[number : number + 1] for name, value in batch.items()}
        yield {name: value[:, :length] if value.ndim > 1 else value for name, value in row.items()}


def join_rows(rows: Iterable[Batch], size: int) -> Iterator[Batch]:
    """Join rows, given as batches of one row, to batches of at most `size` rows, padded on the right with zeros.

    Rows with images stay alone, and come before the text that they interrupt. Rows with labels are not joined to those
    without.
    """
    waiting: list[Batch] = []
    for row in rows:
        if holds_images(row):
            yield row
            continue
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

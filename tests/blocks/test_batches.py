"""Batches divided into rows, and rows joined to batches."""

from __future__ import annotations

import torch

from layerimp.blocks.batches import Batch, chosen_rows, join_rows, rows_of
from layerimp.testing import padded_batch


def labelled(*lengths: int) -> Batch:
    return padded_batch(lengths) | {"labels": torch.arange(len(lengths))}


def test_rows_are_joined_as_they_were_divided() -> None:
    batch = labelled(3, 7, 5)
    rows = list(rows_of(batch))
    assert [row["input_ids"].shape for row in rows] == [(1, 3), (1, 7), (1, 5)]
    (again,) = join_rows(rows, 3)
    assert again.keys() == batch.keys()
    assert all(torch.equal(again[name], batch[name]) for name in batch)
    assert [len(part["input_ids"]) for part in join_rows(rows, 2)] == [2, 1]


def test_rows_with_labels_are_not_joined_to_those_without() -> None:
    first, second = rows_of(labelled(3, 5))
    plain = padded_batch((4,))
    parts = list(join_rows([first, plain, second, plain, plain], 2))
    assert [("labels" in part, len(part["input_ids"])) for part in parts] == [
        (True, 1),
        (False, 1),
        (True, 1),
        (False, 2),
    ]


def test_rows_are_chosen() -> None:
    batch = labelled(3, 7, 5)
    chosen = chosen_rows(batch, torch.tensor([True, False, True]))
    assert all(torch.equal(chosen[name], batch[name][[0, 2]]) for name in batch)

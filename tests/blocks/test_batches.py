"""Batches divided into rows, and rows joined to batches."""

from __future__ import annotations

from typing import Any

import torch

from layerimp.blocks.batches import chosen_rows, image_inputs, join_rows, rows_of, scored_tokens, without_images
from layerimp.testing import padded_batch

Batch = dict[str, Any]
IMAGE: Batch = {
    "input_ids": torch.tensor([[1, 9, 9, 4]]),
    "attention_mask": torch.ones(1, 4, dtype=torch.long),
    "pixel_values": torch.ones(6, 5),
    "image_grid_thw": torch.tensor([[1, 2, 3]]),
}


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


def test_a_row_with_images_is_neither_divided_nor_joined() -> None:
    assert list(rows_of(IMAGE)) == [IMAGE]
    first, second = rows_of(padded_batch((3, 5)))
    parts = list(join_rows([first, IMAGE, second], 2))
    assert parts[0] is IMAGE
    assert parts[1]["input_ids"].shape == (2, 5)


def test_rows_are_chosen_with_their_images() -> None:
    batch = labelled(3, 7, 5)
    chosen = chosen_rows(batch, torch.tensor([True, False, True]))
    assert all(torch.equal(chosen[name], batch[name][[0, 2]]) for name in batch)
    assert chosen_rows(IMAGE, torch.tensor([True])) is IMAGE


def test_what_images_add() -> None:
    """Other tensors of a tokenizer are no images, and are not passed to a model."""
    kinds = {"token_type_ids": torch.zeros(1, 4, dtype=torch.long)}
    assert image_inputs(IMAGE | kinds).keys() == {"pixel_values", "image_grid_thw", "token_type_ids"}
    assert image_inputs(padded_batch((3, 5)) | kinds) == {}
    assert without_images(IMAGE).keys() == {"input_ids", "attention_mask"}


def test_scored_tokens_are_all_real_ones_unless_said_otherwise() -> None:
    batch = padded_batch((1, 3))
    assert scored_tokens(batch).tolist() == [[True, False, False], [True, True, True]]
    assert scored_tokens(IMAGE | {"scored": torch.tensor([[1, 0, 0, 1]])}).tolist() == [[True, False, False, True]]

"""Turns documents into rows of token ids, and rows into batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn.utils.rnn import pad_sequence

from layerimp.calibration.images import IllustratedRow, IllustratedText
from layerimp.defaults import STARTER
from layerimp.errors import CalibrationError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from layerimp.blocks.stack import Batch
    from layerimp.calibration.documents import Packing
    from layerimp.calibration.images import ImageReader

Tokens = list[int] | IllustratedRow
"""The token ids of a document without special tokens, or a finished row with images."""


def groups(rows: Iterable[tuple[int, ...]], size: int) -> Iterator[dict[int, tuple[int, ...]]]:
    """Divide rows into those of a batch each, by number: at most `size` rows of text, or a single row with images."""
    waiting: dict[int, tuple[int, ...]] = {}
    for number, row in enumerate(rows):
        if isinstance(row, IllustratedRow):
            yield {number: row}
            continue
        waiting[number] = row
        if len(waiting) == size:
            yield waiting
            waiting = {}
    if waiting:
        yield waiting


def padded(rows: Iterable[tuple[int, ...]]) -> Batch:
    """Make a batch of `input_ids` and `attention_mask` [row, token], padded on the right with zeros.

    A row with images is given alone, and its batch holds the images as well.
    """
    rows = list(rows)
    if isinstance(rows[0], IllustratedRow):
        return rows[0].inputs()
    ids = list(map(tensor, rows))
    columns = {"input_ids": ids, "attention_mask": list(map(torch.ones_like, ids))}
    return {name: pad_sequence(values, batch_first=True) for name, values in columns.items()}


def tensor(row: tuple[int, ...]) -> Tensor:
    """Make a tensor of integers."""
    return torch.tensor(row, dtype=torch.long)


def _encoded(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Encode a text as token ids, without special tokens."""
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def _frame(tokenizer: PreTrainedTokenizerBase) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the special tokens that the tokenizer puts before and after a text."""
    inner = _encoded(tokenizer, "a")
    whole = list(tokenizer("a")["input_ids"])
    for start in range(len(whole) - len(inner) + 1):
        if inner and whole[start : start + len(inner)] == inner:
            return tuple(whole[:start]), tuple(whole[start + len(inner) :])
    return (), ()


def default_packing(source: str) -> Packing:
    """Return how a text is packed by default: the starter has learned from single documents, not from joined ones."""
    return "rows" if source == STARTER else "windows"


@dataclass(frozen=True)
class RowFormat:
    """How documents become rows of token ids, and rows become batches.

    Attributes:
        tokenizer: The model's tokenizer.
        max_length: Tokens per row.
        batch_size: Rows per batch.
        packing: How documents become rows; see `load_calibration`. Documents with images are rows of their own.
        images: Makes the rows of documents with images, whose length is not `max_length`; None if there are none.
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int
    batch_size: int
    packing: Packing
    images: ImageReader | None = None

    def rows(self, texts: Iterable[str], most: int | None = None) -> Iterator[tuple[int, ...]]:
        """Pack documents into rows, each with the tokenizer's special tokens at its beginning and end.

        Args:
            texts: The documents, which are read as they are needed.
            most: The most tokens that are taken from each document without images; None for all.

        Raises:
            CalibrationError: a row has no room for text beside the special tokens, a document is empty, or its images
                cannot be read.
        """
        before, after = _frame(self.tokenizer)
        room = self.max_length - len(before) - len(after)
        if room < 1:
            special = len(before + after)
            raise CalibrationError(f"rows of {self.max_length} tokens have no room beside {special} special ones")
        documents = (self._tokens(text, most) for text in texts)
        if self.packing == "rows":
            parts = _beginnings(documents, room)
        else:
            eos = self.tokenizer.eos_token_id
            parts = _windows(documents, room, [eos] if isinstance(eos, int) and not after else [])
        return (part if isinstance(part, IllustratedRow) else (*before, *part, *after) for part in parts)

    def _tokens(self, text: str, most: int | None) -> Tokens:
        if isinstance(text, IllustratedText) and self.images is not None:
            return self.images.row(text)
        return _encoded(self.tokenizer, text)[:most]


def _windows(documents: Iterable[Tokens], room: int, end: list[int]) -> Iterator[Tokens]:
    pending: list[int] = []
    for document in documents:
        if isinstance(document, IllustratedRow):
            yield document
            continue
        pending += document + end
        while len(pending) >= room:
            yield pending[:room]
            del pending[:room]


def _beginnings(documents: Iterable[Tokens], room: int) -> Iterator[Tokens]:
    for document in documents:
        if not document:
            raise CalibrationError("a document holds no token that the tokenizer knows of")
        yield document if isinstance(document, IllustratedRow) else document[:room]

"""Turns documents into rows of token ids, and rows into batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import torch
from torch.nn.utils.rnn import pad_sequence

from layerimp.defaults import STARTER
from layerimp.errors import CalibrationError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from layerimp.blocks.stack import Batch
    from layerimp.calibration.documents import Packing


def groups(rows: Iterable[tuple[int, ...]], size: int) -> Iterator[list[tuple[int, ...]]]:
    """Divide rows into those of a batch each: `size` rows, or what is left."""
    remaining = iter(rows)
    while group := list(islice(remaining, size)):
        yield group


def padded(rows: Iterable[tuple[int, ...]]) -> Batch:
    """Make a batch of `input_ids` and `attention_mask` [row, token], padded on the right with zeros."""
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
        packing: How documents become rows; see `load_calibration`.
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int
    batch_size: int
    packing: Packing

    def rows(self, texts: Iterable[str], most: int | None = None) -> Iterator[tuple[int, ...]]:
        """Pack documents into rows, each with the tokenizer's special tokens at its beginning and end.

        Args:
            texts: The documents, which are read as they are needed.
            most: The most tokens that are taken from each document; None for all.

        Raises:
            CalibrationError: a row has no room for text beside the special tokens, or a document is empty.
        """
        before, after = _frame(self.tokenizer)
        room = self.max_length - len(before) - len(after)
        if room < 1:
            special = len(before + after)
            raise CalibrationError(f"rows of {self.max_length} tokens have no room beside {special} special ones")
        documents = (_encoded(self.tokenizer, text)[:most] for text in texts)
        if self.packing == "rows":
            parts = _beginnings(documents, room)
        else:
            eos = self.tokenizer.eos_token_id
            parts = _windows(documents, room, [eos] if isinstance(eos, int) and not after else [])
        return ((*before, *part, *after) for part in parts)


def _windows(documents: Iterable[list[int]], room: int, end: list[int]) -> Iterator[list[int]]:
    pending: list[int] = []
    for document in documents:
        pending += document + end
        while len(pending) >= room:
            yield pending[:room]
            del pending[:room]


def _beginnings(documents: Iterable[list[int]], room: int) -> Iterator[list[int]]:
    for document in documents:
        if not document:
            raise CalibrationError("a document holds no token that the tokenizer knows of")
        yield document[:room]

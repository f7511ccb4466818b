"""The training text, some rows at a time."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import torch
from torch.nn.utils.rnn import pad_sequence

if TYPE_CHECKING:
    from layerimp.sweep import Batch


@dataclass(frozen=True)
class Text:
    """Endless training text. Each round reads the calibration set, shuffled anew, and then the further text.

    Attributes:
        batches: The calibration set, padded on the right.
        further: Further training text.
        rows: The rows of a step.
        seed: Seed of the order of the calibration set.
    """

    batches: Sequence[Batch]
    further: Iterable[Batch]
    rows: int
    seed: int

    def steps(self, skipped: int = 0) -> Iterator[list[Batch]]:
        """Yield the rows of each step, without those of the first steps."""
        rows = self._rows()
        for _ in islice(rows, skipped * self.rows):
            pass
        while True:
            yield list(islice(rows, self.rows))

    def _rows(self) -> Iterator[Batch]:
        own = [row for batch in self.batches for row in _rows_of(batch)]
        order = random.Random(self.seed)
        while True:
            order.shuffle(own)
            yield from own
            for batch in self.further:
                yield from _rows_of(batch)


def _rows_of(batch: Batch) -> Iterator[Batch]:
    """Yield the rows of a batch without padding: token values [token], and a label [] if there is one."""
    for number, mask in enumerate(batch["attention_mask"].bool()):
        yield {name: value[number][mask] if value.ndim > 1 else value[number] for name, value in batch.items()}


def joined(rows: Sequence[Batch]) -> Batch:
    """Join rows to a batch, padded on the right with zeros."""
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return {
        name: pad_sequence(values, batch_first=True) if values[0].ndim else torch.stack(values)
        for name, values in columns.items()
    }

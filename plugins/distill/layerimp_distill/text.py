"""The training text, some rows at a time."""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from layerimp.blocks import rows_of
from layerimp.fidelity import repeated

if TYPE_CHECKING:
    from layerimp.sweep import Batch


POOL = 8
"""The rows of so many steps are drawn together, and parted by length, so that little of a step is padding."""
ALIKE = 8
"""Rows are of about the same length if they fall into the same of so many classes between a length and its double."""


@dataclass(frozen=True)
class Text:
    """Endless training text. Each round reads the calibration set, shuffled anew, and then the further text.

    The rows of a step have about the same length. All have labels or none, except in at most one step of each pool.

    Attributes:
        batches: The calibration set, padded on the right.
        further: Further training text.
        rows: The rows of a step.
        seed: Seed of the order of the calibration set.
        repeated: The share of the rows, drawn anew in each round, whose first half takes the place of the second.
        special: The ids of the special tokens.
    """

    batches: Sequence[Batch]
    further: Iterable[Batch]
    rows: int
    seed: int
    repeated: float = 0.0
    special: Collection[int] = ()

    def steps(self, skipped: int = 0) -> Iterator[list[Batch]]:
        """Yield the rows of each step as batches of one row, without those of the first steps."""
        rows = self._rows()
        while True:
            pool = list(islice(rows, POOL * self.rows))
            order = sorted(range(len(pool)), key=lambda number: _kind(pool[number]))
            steps = sorted((order[first : first + self.rows] for first in range(0, len(order), self.rows)), key=min)
            yield from ([pool[number] for number in step] for step in steps[skipped:])
            skipped = max(0, skipped - POOL)

    def _rows(self) -> Iterator[Batch]:
        chance = random.Random(self.seed)
        for row in self._plain():
            doubled = next(repeated([row], self.special), None) if chance.random() < self.repeated else None
            yield row if doubled is None else doubled[0]

    def _plain(self) -> Iterator[Batch]:
        own = [row for batch in self.batches for row in rows_of(batch)]
        order = random.Random(self.seed)
        while True:
            order.shuffle(own)
            yield from own
            for batch in self.further:
                yield from rows_of(batch)


def tokens_in(batch: Batch) -> int:
    """Return the number of tokens in a batch, without padding."""
    return int(batch["attention_mask"].sum())


def _kind(row: Batch) -> tuple[bool, int]:
    """Return what the rows of a step have in common: whether they have labels, and about how long they are."""
    return "labels" in row, round(ALIKE * math.log2(row["input_ids"].shape[1]))

"""The training text, some rows at a time."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from layerimp.blocks import rows_of

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
        """Yield the rows of each step as batches of one row, without those of the first steps."""
        rows = self._rows()
        for _ in islice(rows, skipped * self.rows):
            pass
        while True:
            yield list(islice(rows, self.rows))

    def _rows(self) -> Iterator[Batch]:
        own = [row for batch in self.batches for row in rows_of(batch)]
        order = random.Random(self.seed)
        while True:
            order.shuffle(own)
            yield from own
            for batch in self.further:
                yield from rows_of(batch)

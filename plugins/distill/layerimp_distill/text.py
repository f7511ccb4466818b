"""The training text, some rows at a time."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from layerimp.blocks import rows_of
from layerimp.fidelity import repeated

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
        for _ in islice(rows, skipped * self.rows):
            pass
        while True:
            yield list(islice(rows, self.rows))

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

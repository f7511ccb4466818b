"""Made-up costs of removals, for pruners to search, and all orders in which blocks can be removed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

from layerimp import Importance
from layerimp.indices import kept_blocks


class Damage:
    """What removals cost; the score of a block is by how much that rises.

    Args:
        num_blocks: How many blocks the model has.
        of: The cost of what is removed; by default a sum over the blocks, and chance that depends on them all.
        seed: For that chance.
    """

    def __init__(self, num_blocks: int, of: Callable[[frozenset[int]], float] | None = None, *, seed: int = 0) -> None:
        self.num_blocks, self._of, self._seed = num_blocks, of, seed
        self.asked: list[tuple[int, ...]] = []

    def of(self, blocks: Sequence[int]) -> float:
        """The cost of a removal."""
        removed = frozenset(blocks)
        if self._of is not None:
            return self._of(removed)
        words = [f"{self._seed} {block}" for block in removed] + [f"{self._seed} {sorted(removed)}"]
        return sum(random.Random(word).random() for word in words) if removed else 0.0

    def __call__(self, removed: Sequence[int]) -> Importance:
        self.asked.append(tuple(removed))
        before, blocks = self.of(removed), kept_blocks(removed, self.num_blocks)
        return Importance([self.of([*removed, block]) - before for block in blocks], blocks)

    def sequences(self, count: int, first: tuple[int, ...] = ()) -> Iterator[tuple[int, ...]]:
        """All sequences of a given number of blocks that begin with some given blocks."""
        if len(first) == count:
            yield first
            return
        for block in kept_blocks(first, self.num_blocks):
            yield from self.sequences(count, (*first, block))

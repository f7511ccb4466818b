"""Made-up costs of removals, for pruners to search, and all orders in which steps can be taken."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

from layerimp import Importance
from layerimp.steps import Cuts, Step, Sublayer, candidates, removed_by, sublayers_of


class Damage:
    """What removals cost; the score of a step is by how much that rises.

    Args:
        num_blocks: How many blocks the model has.
        of: The cost of what is gone; by default a sum over the sublayers, and chance that depends on them all.
        seed: For that chance.
        cuts: Which steps are scored.
    """

    def __init__(
        self,
        num_blocks: int,
        of: Callable[[frozenset[Sublayer]], float] | None = None,
        *,
        seed: int = 0,
        cuts: Cuts = "all",
    ) -> None:
        self.num_blocks, self.cuts, self._of, self._seed = num_blocks, cuts, of, seed
        self.asked: list[tuple[Step, ...]] = []

    def of(self, steps: Sequence[Step]) -> float:
        """The cost of a removal."""
        gone = removed_by(steps)
        if self._of is not None:
            return self._of(gone)
        words = [f"{self._seed} {part}" for part in gone] + [f"{self._seed} {sorted(map(str, gone))}"]
        return sum(random.Random(word).random() for word in words) if gone else 0.0

    def next(self, removed: Sequence[Step]) -> list[Step]:
        """The steps that can be taken after others, in depth order."""
        blocks, seams = candidates(removed, self.num_blocks, self.cuts)
        return sorted([*blocks, *seams], key=sublayers_of)

    def __call__(self, removed: Sequence[Step]) -> Importance:
        self.asked.append(tuple(removed))
        before, steps = self.of(removed), self.next(removed)
        return Importance([self.of([*removed, step]) - before for step in steps], steps)

    def sequences(self, count: int, first: tuple[Step, ...] = ()) -> Iterator[tuple[Step, ...]]:
        """All valid sequences of a given number of steps that begin with some given steps."""
        if len(first) == count:
            yield first
            return
        for step in self.next(first):
            yield from self.sequences(count, (*first, step))

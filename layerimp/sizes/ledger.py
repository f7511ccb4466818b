"""The ledger: the size of each part of a model, from which a pruned model's size follows without removing anything."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate

Owners = frozenset[int]
"""The blocks that use a parameter. The parameter is removed once all of them are removed."""


@dataclass(frozen=True)
class Amounts:
    """The size of a model, or of a part of one.

    Attributes:
        parameters: The number of distinct parameters.
        bytes: The bytes of these parameters in the stored dtype.
        cache: The bytes that generation keeps per token; NaN if not known.
    """

    parameters: int = 0
    bytes: int = 0
    cache: float = 0.0

    def __add__(self, other: Amounts) -> Amounts:
        return Amounts(self.parameters + other.parameters, self.bytes + other.bytes, self.cache + other.cache)

    def of(self, quantity: str) -> float:
        """Return the value of a quantity: `parameters`, `bytes` or `kv-cache`."""
        return {"parameters": self.parameters, "bytes": self.bytes, "kv-cache": self.cache}[quantity]


@dataclass(frozen=True)
class Ledger:
    """The sizes of a model's parts.

    Attributes:
        num_blocks: The number of blocks.
        outside: The part that is never removed: embeddings, head, and everything else outside the blocks.
        parts: For each set of owners, the part that is removed once all of these blocks are removed.
    """

    num_blocks: int
    outside: Amounts
    parts: Mapping[Owners, Amounts]

    @classmethod
    def collected(cls, num_blocks: int, entries: Iterable[tuple[Collection[int], Amounts]]) -> Ledger:
        """Make a ledger from single entries with their owners; an entry without owners is outside the blocks."""
        sums: defaultdict[Owners, Amounts] = defaultdict(Amounts)
        for owners, amounts in entries:
            sums[frozenset(owners)] += amounts
        outside = sums.pop(frozenset(), Amounts())
        return cls(num_blocks, outside, dict(sums))

    def left(self, removed: Collection[int]) -> Amounts:
        """Return the size of the model without some blocks."""
        out = frozenset(removed)
        return sum((amounts for owners, amounts in self.parts.items() if not owners <= out), self.outside)

    @property
    def largest_block(self) -> Amounts:
        """The size of the block with the most bytes."""
        sizes = (self.inside([block]) for block in range(self.num_blocks))
        return max(sizes, key=lambda size: size.bytes)

    def inside(self, of: Collection[int]) -> Amounts:
        """Return the size of what is removed with some blocks."""
        own = frozenset(of)
        return sum((amounts for owners, amounts in self.parts.items() if owners <= own), Amounts())

    def fewest(self, quantity: str, limit: float, free: Collection[int], *, lightest: bool = False) -> int:
        """Return the least number of blocks whose removal can bring a quantity down to a limit.

        Args:
            quantity: The quantity.
            limit: The largest value that is allowed.
            free: The blocks that may be removed.
            lightest: Whether to assume that the smallest blocks are removed first. The result is then about the number
                of blocks with which any removal meets the limit.
        """
        excess = self.left(()).of(quantity) - limit
        slack = 1e-9 * max(1.0, abs(excess))  # the shares are rounded
        return sum(amount < excess - slack for amount in self.removable(quantity, free, lightest=lightest))

    def removable(self, quantity: str, free: Collection[int], *, lightest: bool = False) -> list[float]:
        """Return the most of a quantity that 0, 1, 2 and more blocks remove, or with `lightest` about the least.

        A part with several owners counts in equal shares, since no removal takes more than the shares of its blocks.
        """
        shares: defaultdict[int, float] = defaultdict(float)
        for owners, amounts in self.parts.items():
            for owner in owners:
                shares[owner] += amounts.of(quantity) / len(owners)
        return list(accumulate(sorted((shares[block] for block in free), reverse=not lightest), initial=0.0))

    def least(self, quantity: str, stay: Collection[int], removed: Collection[int]) -> Amounts:
        """Return the size of the smallest model that a removal can leave, by one quantity.

        Args:
            quantity: The quantity.
            stay: The blocks that are kept; if there are none, one block of some kind is left.
            removed: The blocks that are removed in any case.
        """
        blocks = set(range(self.num_blocks))
        kept = [set(stay)] if stay else [{block} for block in blocks.difference(removed) or blocks]
        return min((self.left(blocks - own) for own in kept), key=lambda left: left.of(quantity))

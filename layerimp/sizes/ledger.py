"""What each part of a model amounts to, so that the size of what a plan leaves is known without removing anything."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from layerimp.steps import Sublayer

if TYPE_CHECKING:
    from layerimp.steps import Cuts

Owners = frozenset[Sublayer]
"""The sublayers that use a parameter, which goes once all of them are gone."""
_PARTS = ("attn", "mlp")


@dataclass(frozen=True)
class Amounts:
    """What a model, or a part of one, amounts to.

    Attributes:
        parameters: Its distinct parameters.
        bytes: Theirs, as they are stored.
        cache: What generation keeps of each token, in bytes; NaN where that is not known.
    """

    parameters: int = 0
    bytes: int = 0
    cache: float = 0.0

    def __add__(self, other: Amounts) -> Amounts:
        return Amounts(self.parameters + other.parameters, self.bytes + other.bytes, self.cache + other.cache)

    def of(self, quantity: str) -> float:
        """The amount of a quantity: `parameters`, `bytes` or `kv-cache`."""
        return {"parameters": self.parameters, "bytes": self.bytes, "kv-cache": self.cache}[quantity]


@dataclass(frozen=True)
class Ledger:
    """What the parts of a model amount to.

    Attributes:
        num_blocks: The number of blocks.
        outside: What stays whatever is removed: embeddings, head, and all else outside the blocks.
        parts: By their owners, what goes once all of these are gone. What lies in a block whose halves are not told
            apart belongs to both of them.
    """

    num_blocks: int
    outside: Amounts
    parts: Mapping[Owners, Amounts]

    @classmethod
    def collected(cls, num_blocks: int, entries: Iterable[tuple[Collection[Sublayer], Amounts]]) -> Ledger:
        """The ledger of single entries, each with its owners; one without owners lies outside the blocks."""
        sums: defaultdict[Owners, Amounts] = defaultdict(Amounts)
        for owners, amounts in entries:
            sums[frozenset(owners)] += amounts
        outside = sums.pop(frozenset(), Amounts())
        return cls(num_blocks, outside, dict(sums))

    @property
    def sublayers(self) -> list[Sublayer]:
        """All sublayers, in depth order."""
        return [Sublayer.at(depth) for depth in range(2 * self.num_blocks)]

    def left(self, gone: Collection[Sublayer]) -> Amounts:
        """What is left of the model without some sublayers."""
        out = frozenset(gone)
        return sum((amounts for owners, amounts in self.parts.items() if not owners <= out), self.outside)

    def inside(self, of: Collection[Sublayer]) -> Amounts:
        """What goes with some sublayers and nothing else."""
        own = frozenset(of)
        return sum((amounts for owners, amounts in self.parts.items() if owners <= own), Amounts())

    def fewest(self, quantity: str, limit: float, free: Collection[Sublayer], *, lightest: bool = False) -> int:
        """A number of steps below which no removal brings a quantity down to a limit.

        Args:
            quantity: The quantity.
            limit: The largest value that is allowed.
            free: The sublayers that may go.
            lightest: Whether what amounts to least goes first: about the number with which every removal does.
        """
        excess = self.left(()).of(quantity) - limit
        slack = 1e-9 * max(1.0, abs(excess))  # the shares are rounded
        return sum(amount < excess - slack for amount in self.removable(quantity, free, lightest=lightest))

    def removable(self, quantity: str, free: Collection[Sublayer], *, lightest: bool = False) -> list[float]:
        """What 0, 1, 2 and more steps remove of a quantity at most, or with `lightest` about at least.

        A part with several owners counts in equal shares: no removal takes more than the shares of what it removes.
        """
        shares: defaultdict[Sublayer, float] = defaultdict(float)
        for owners, amounts in self.parts.items():
            for owner in owners:
                shares[owner] += amounts.of(quantity) / len(owners)
        halves = (sorted((shares[one] for one in free if one.part == part), reverse=not lightest) for part in _PARTS)
        return list(accumulate((sum(pair) for pair in zip(*halves, strict=False)), initial=0.0))

    def least(self, quantity: str, stay: Collection[int], gone: Collection[Sublayer], cuts: Cuts) -> Amounts:
        """The least that a removal can leave, by one quantity.

        Args:
            quantity: The quantity.
            stay: The blocks that stay whole; if there are none, one block of some kind is left.
            gone: The sublayers that go in any case.
            cuts: Whether whole blocks alone go, or seams as well, so that what is left may be of two blocks.
        """
        kept = [{one for one in self.sublayers if one.block in stay and one not in gone}]
        if not kept[0]:
            pairs = [
                {Sublayer(first, "attn"), Sublayer(second, "mlp")}
                for first in range(self.num_blocks)
                for second in range(first, self.num_blocks if cuts == "all" else first + 1)
            ]
            kept = [pair for pair in pairs if pair.isdisjoint(gone)] or pairs
        return min((self.left(set(self.sublayers) - pair) for pair in kept), key=lambda left: left.of(quantity))

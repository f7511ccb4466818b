"""The structure of the kept blocks, compared with the blocks that stock code would build."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from layerimp.surgery.meta_model import Facts


class KeptBlocks:
    """The facts of the kept blocks.

    Args:
        kept: The kept blocks, in depth order.
        before: The facts of all blocks of the intact model.

    Attributes:
        kept: The kept blocks, in depth order.
    """

    def __init__(self, kept: Sequence[int], before: Sequence[Facts]) -> None:
        self.kept, self._before, self._count = kept, before, len(before)

    def __len__(self) -> int:
        return len(self.kept)

    def kinds(self) -> list[frozenset[int]]:
        """Group the blocks by the classes of their parts; empty if all blocks are alike."""
        kinds: dict[object, list[int]] = {}
        for index, known in enumerate(self._before):
            classes = tuple(sorted((name, str(value)) for name, value in known.items() if name.endswith("class")))
            kinds.setdefault(classes, []).append(index)
        return [frozenset(blocks) for blocks in kinds.values()] if len(kinds) > 1 else []

    def compare(self, after: Sequence[Facts]) -> Iterator[tuple[int, str, object, object, bool]]:
        """Compare the kept blocks with the blocks that stock code builds.

        Args:
            after: The facts of the blocks that stock code builds.

        Yields:
            For each difference, the block's new index, the name of the fact, the old and the new value, and whether the
            kept block can simply take the new value.
        """
        for new, index in enumerate(self.kept):
            names = self._before[index].keys() | after[new].keys()
            for name in sorted(names, key=lambda n: (n.count("."), n)):
                was, now = self._before[index].get(name), after[new].get(name)
                if not same(was, now):
                    yield new, name, was, now, self._refers(name, new, was, now)

    def _refers(self, name: str, new: int, was: object, now: object) -> bool:
        """Whether an attribute refers to the block's own position, to that of another block, or to their number."""
        kept = self.kept
        old = kept[new]
        if isinstance(was, dict) and isinstance(now, dict):  # mappings from block indices
            return True
        if isinstance(was, tuple):
            places = tuple(kept.index(index) for index in was if index in kept)
            sliced = len(was) == self._count and now == tuple(was[index] for index in kept)
            return sliced or now == places
        if type(was) is not int or type(now) is not int:
            return False
        if (was == old and now == new) or (was == self._count and now == len(kept)):
            return True
        if 0 <= now < len(kept) and kept[now] == was:
            return True
        by_block = {index: known[name] for index, known in enumerate(self._before) if name in known}
        values = [value for value in by_block.values() if isinstance(value, int)]
        if len(values) < 2 or len(values) < len(by_block):
            return False
        if values == list(range(values[0], values[0] + len(values))):  # a position among the blocks of one kind
            left = [index for index in by_block if index in kept]
            if now == values[0] + left.index(old):
                return True
        (first, first_value), (second, second_value) = list(zip(by_block, values, strict=True))[:2]
        slope = (second_value - first_value) // (second - first)
        line = [first_value + slope * (index - first) for index in by_block]
        return slope > 0 and values == line and now == first_value + slope * (new - first)


def same(was: object, now: object) -> bool:
    """Whether two values of a fact are equal, up to the rounding of a number."""
    if isinstance(was, float) and isinstance(now, float):
        return math.isclose(was, now, rel_tol=1e-12) or (math.isnan(was) and math.isnan(now))
    return type(was) is type(now) and was == now

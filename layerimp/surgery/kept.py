"""The structure of the kept blocks, compared with the blocks that stock code would build."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from layerimp.blocks.middle import in_mlp, parts_both

if TYPE_CHECKING:
    from layerimp.blocks.middle import Halves
    from layerimp.steps import Part
    from layerimp.surgery.meta_model import Facts

Pair = tuple[int, int]
"""A kept block, as the blocks that its attention and its MLP come from; usually the same block."""


class KeptBlocks:
    """The facts of the kept blocks.

    Args:
        pairs: The kept blocks, in depth order.
        before: The facts of all blocks of the intact model.
        halves: The halves of the blocks of which only one half is kept, by index.

    Attributes:
        by: For each half, the blocks of which that half is kept, in depth order. If only whole blocks are removed, both
            lists are the same.
    """

    def __init__(self, pairs: Sequence[Pair], before: Sequence[Facts], halves: Mapping[int, Halves]) -> None:
        self._pairs, self._before, self._halves = pairs, before, halves
        self._count = len(before)
        self.by: dict[Part, list[int]] = {"attn": [first for first, _ in pairs], "mlp": [last for _, last in pairs]}

    def __len__(self) -> int:
        return len(self._pairs)

    def kinds(self, part: Part) -> list[frozenset[int]]:
        """Group the blocks by the classes of their parts, or of a half's parts; empty if all blocks are alike."""
        mlp = frozenset[str]().union(*(halves.mlp for halves in self._halves.values()))
        kinds: dict[object, list[int]] = {}
        for index, known in enumerate(self._before):
            classes = tuple(
                sorted(
                    (name, str(value))
                    for name, value in known.items()
                    if name.endswith("class") and (not mlp or in_mlp(name, mlp) == (part == "mlp"))
                )
            )
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
        for new in range(len(self)):
            names = self._names(new) | after[new].keys()
            for name in sorted(names, key=lambda n: (n.count("."), n)):
                now = after[new].get(name)
                parts = self._parts(new, name)
                held = [self._held(new, part, name) for part in parts]
                if not same(held[0], now):
                    refers = (self._refers(name, part, new, was, now) for part, was in zip(parts, held, strict=True))
                    settable = not name.endswith(("class", "(values)")) and not isinstance(now, tuple)
                    other = settable and any(same(was, now) for was in held)
                    yield new, name, held[0], now, other or any(refers)

    def named(self, new: int) -> str:
        """Name a kept block by its index, or by the halves that it is composed of."""
        attention, mlp = self._pairs[new]
        return f"block {attention}" if attention == mlp else f"{attention}.attn with {mlp}.mlp"

    def _names(self, new: int) -> set[str]:
        """Return the names of a kept block's facts."""
        attention, mlp = self._pairs[new]
        if attention == mlp:
            return set(self._before[attention])
        names = {name for name in self._before[attention] if not in_mlp(name, self._halves[attention].mlp)}
        return names | {name for name in self._before[mlp] if in_mlp(name, self._halves[mlp].mlp)}

    def _parts(self, new: int, name: str) -> tuple[Part, ...]:
        """Return the half that a fact of a kept block belongs to; both if a module contains parts of both."""
        attention, mlp = self._pairs[new]
        if attention == mlp:
            return ("attn",)
        paths = self._halves[mlp].mlp
        if in_mlp(name, paths):
            return ("mlp",)
        return ("attn", "mlp") if parts_both(name.rpartition(".")[0], paths) else ("attn",)

    def _held(self, new: int, part: Part, name: str) -> object:
        """Return a fact of the block that a half comes from; None if the fact concerns the half that is not kept."""
        index, other = self.by[part][new], self._pairs[new][part == "attn"]
        if part == "attn" and index != other and in_mlp(name, self._halves[index].mlp):
            return None
        return self._before[index].get(name)

    def _refers(self, name: str, part: Part, new: int, was: object, now: object) -> bool:
        """Whether an attribute refers to the block's own position, to that of another block, or to their number."""
        kept = self.by[part]
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

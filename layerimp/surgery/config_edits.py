"""What the fields of a configuration may become when blocks go: by their form and by their values, not by their names.

Each rewriting is a guess that a meta model confirms or not; see `layerimp.surgery.config_search`.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import getitem
from typing import Any

from transformers import PretrainedConfig

COMMON = frozenset(vars(PretrainedConfig()))
"""Fields that every configuration has; none describes blocks."""
COUNTS_LAYERS = re.compile(r"(^|_)(layers?|blocks?|depth)(_|$)")
"""Names of fields that speak of layers."""
LONGEST_PERIOD = 16
_TOKENS = re.compile(r"token_(ids?|index)$")

FieldPath = tuple[str, ...]
"""Where a field is: its name, after those of the mappings that hold it."""
Fields = dict[FieldPath, Any]
"""Rewritten fields, in the order in which they are written."""


@dataclass(frozen=True)
class Rewrites:
    """What fields may become for the kept blocks, or for the kept attentions or MLPs.

    Attributes:
        kept: The indices of the blocks that stay, or of which that half stays, in order.
        count: How many there were.
        kinds: The blocks by what they are built of, where they differ.
    """

    kept: Sequence[int]
    count: int
    kinds: Sequence[frozenset[int]] = ()

    def listed(self, name: str, value: Any) -> Any:
        """A list or a mapping with one entry per block, shortened; None for what is neither."""
        if name in COMMON or _TOKENS.search(name):
            return None
        if isinstance(value, list | tuple) and len(value) == self.count:
            if list(value) == list(range(self.count)):  # all of them, by index
                return list(range(len(self.kept)))
            return [value[index] for index in self.kept]
        if isinstance(value, dict) and value and all(str(key).isdigit() and int(key) < self.count for key in value):
            if len(value) < self.count and not COUNTS_LAYERS.search(name):
                return None  # it numbers something else
            entries = {int(key): (type(key), entry) for key, entry in value.items()}
            return {entries[old][0](new): entries[old][1] for new, old in enumerate(self.kept) if old in entries}
        return None

    def periods(self, value: Any) -> Iterator[int]:
        """What a number may become that tells after how many blocks a pattern repeats."""
        if type(value) is int and 0 <= value <= self.count:
            yield from range(1, min(self.count, LONGEST_PERIOD) + 1)

    def candidates(self, value: Any) -> Iterator[Any]:
        """What a field may become: a count of the first or last blocks, a factor, a list of indices."""
        kept, count = self.kept, self.count
        if type(value) is int and 0 <= value <= count:
            yield sum(index < value for index in kept)
            yield sum(index >= count - value for index in kept)
            yield max(sum(index <= value for index in kept) - 1, 0)
        elif type(value) is float:
            ratio = len(kept) / count
            yield from (value * factor for factor in (math.sqrt(ratio), ratio, 1 / math.sqrt(ratio), 1 / ratio))
        elif isinstance(value, list | tuple):
            yield from self._lists(list(value))

    def _lists(self, value: list[Any]) -> Iterator[Any]:
        kept, count = self.kept, self.count
        if len(value) == count:
            yield [value[index] for index in kept]
            yield value
        for base in (0, 1):
            if self._names_blocks(value, base):
                yield [new + base for new, old in enumerate(kept) if old + base in value]
                yield from ([new + base for new, old in enumerate(kept) if old in kind] for kind in self.kinds)
        if 1 < len(value) < count and not any(isinstance(item, list | tuple | dict) for item in value):
            yield [value[index % len(value)] for index in kept]  # a pattern that repeats
        expanded = _expanded(value)
        if expanded is not None and len(expanded) == count:
            yield [[[expanded[index] for index in kept], 1]]

    def followers(self, part: Mapping[str, Any], done: Fields) -> Iterator[tuple[FieldPath, Any]]:
        """Fields that are not `done` and speak of layers, as they would be for the kept blocks.

        A number does where it counts all blocks, or parts them just as one of the lists does.
        """
        lists = [
            value
            for name, value in part.items()
            if isinstance(value, list | tuple)
            and (new := self.listed(name, value)) is not None
            and done.get((name,), new) == new
        ]
        for name, value in part.items():
            if any(path[0] == name for path in done) or name in COMMON or not COUNTS_LAYERS.search(name):
                continue
            if type(value) is int:
                if value == self.count or (0 < value < self.count and any(_parts(one, value) for one in lists)):
                    yield (name,), sum(index < value for index in self.kept)
            elif isinstance(value, list | tuple) and value and self._names_blocks(value):
                yield (name,), [new for new, old in enumerate(self.kept) if old in value]

    def _names_blocks(self, value: Sequence[Any], base: int = 0) -> bool:
        """Whether a list may name blocks by their index, counted from `base`."""
        return all(type(item) is int and base <= item < self.count + base for item in value) and (
            len(set(value)) == len(value)
        )


def leaves(part: Mapping[str, Any], path: FieldPath = ()) -> Iterator[tuple[FieldPath, Any]]:
    """The fields of a configuration, and those of mappings in it, that may depend on the blocks."""
    for name, value in part.items():
        if not isinstance(name, str) or (not path and name in COMMON):
            continue
        if isinstance(value, dict) and name not in COMMON and len(path) < 2:
            yield from leaves(value, (*path, name))
        if not _TOKENS.search(name):
            yield (*path, name), value


def write(part: dict[str, Any], fields: Fields) -> None:
    """Let a configuration hold rewritten fields."""
    for path, value in fields.items():
        holder = reduce(getitem, path[:-1], part)
        holder[path[-1]] = copy.deepcopy(value)


def _parts(one: Sequence[Any], value: int) -> bool:
    """Whether the first `value` entries of a list are all alike, and the next one is not."""
    return len({str(entry) for entry in one[:value]}) == 1 and str(one[value]) != str(one[value - 1])


def _expanded(value: list[Any]) -> list[Any] | None:
    """A list of [kinds, times] pairs as the list of kinds that it stands for; None where it is none."""
    expanded: list[Any] = []
    for item in value:
        if not (isinstance(item, list | tuple) and len(item) == 2):
            return None
        kinds, times = item
        if not (isinstance(kinds, list | tuple) and type(times) is int):
            return None
        expanded += list(kinds) * times
    return expanded

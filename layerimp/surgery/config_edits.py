"""Possible new values of configuration fields after a removal, derived from their form and values, not their names.

Each new value is a guess, which a meta model confirms or refutes; see `layerimp.surgery.config_search`.
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
"""Fields that every configuration has. None of them describes blocks."""
COUNTS_LAYERS = re.compile(r"(^|_)(layers?|blocks?|depth)(_|$)")
"""Matches names of fields that mention layers."""
LONGEST_PERIOD = 16
_TOKENS = re.compile(r"token_(ids?|index)$")

FieldPath = tuple[str, ...]
"""The path of a field: the names of the mappings that contain it, then its own name."""
Fields = dict[FieldPath, Any]
"""New values of fields, in the order in which they are written."""


@dataclass(frozen=True)
class Rewrites:
    """Possible new values of fields for the kept blocks.

    Attributes:
        kept: The indices of the kept blocks, in order.
        count: The number of blocks of the intact model.
        kinds: The blocks grouped by their structure, if structures differ.
    """

    kept: Sequence[int]
    count: int
    kinds: Sequence[frozenset[int]] = ()

    def listed(self, name: str, value: Any) -> Any:
        """Shorten a list or a mapping with one entry per block; None for other values."""
        if name in COMMON or _TOKENS.search(name):
            return None
        if isinstance(value, list | tuple) and len(value) == self.count:
            if list(value) == list(range(self.count)):  # the indices of all blocks
                return list(range(len(self.kept)))
            return [value[index] for index in self.kept]
        if isinstance(value, dict) and value and all(str(key).isdigit() and int(key) < self.count for key in value):
            if len(value) < self.count and not COUNTS_LAYERS.search(name):
                return None  # the keys number something else
            entries = {int(key): (type(key), entry) for key, entry in value.items()}
            return {entries[old][0](new): entries[old][1] for new, old in enumerate(self.kept) if old in entries}
        return None

    def periods(self, value: Any) -> Iterator[int]:
        """Yield possible values for a number that says after how many blocks a pattern repeats."""
        if type(value) is int and 0 <= value <= self.count:
            yield from range(1, min(self.count, LONGEST_PERIOD) + 1)

    def candidates(self, value: Any) -> Iterator[Any]:
        """Yield possible values for a field: a count of the first or last blocks, a factor, a list of indices."""
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
        """Yield fields that mention layers and are not `done`, with their values for the kept blocks.

        A number is included if it counts all blocks, or if it divides them at the same place as one of the lists.
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
                if value == self.count or (0 < value < self.count and any(_parts(entries, value) for entries in lists)):
                    yield (name,), sum(index < value for index in self.kept)
            elif isinstance(value, list | tuple) and value and self._names_blocks(value):
                yield (name,), [new for new, old in enumerate(self.kept) if old in value]

    def _names_blocks(self, value: Sequence[Any], base: int = 0) -> bool:
        """Whether a list may name blocks by their index, counted from `base`."""
        return all(type(item) is int and base <= item < self.count + base for item in value) and (
            len(set(value)) == len(value)
        )


def leaves(part: Mapping[str, Any], path: FieldPath = ()) -> Iterator[tuple[FieldPath, Any]]:
    """Yield the fields of a configuration, and of mappings in it, that may depend on the blocks."""
    for name, value in part.items():
        if not isinstance(name, str) or (not path and name in COMMON):
            continue
        if isinstance(value, dict) and name not in COMMON and len(path) < 2:
            yield from leaves(value, (*path, name))
        if not _TOKENS.search(name):
            yield (*path, name), value


def write(part: dict[str, Any], fields: Fields) -> None:
    """Write new values of fields into a configuration."""
    for path, value in fields.items():
        holder = reduce(getitem, path[:-1], part)
        holder[path[-1]] = copy.deepcopy(value)


def _parts(entries: Sequence[Any], value: int) -> bool:
    """Whether the first `value` entries of a list are equal, and the next entry is different."""
    return len({str(entry) for entry in entries[:value]}) == 1 and str(entries[value]) != str(entries[value - 1])


def _expanded(value: list[Any]) -> list[Any] | None:
    """Expand a list of [kinds, times] pairs to the list of kinds that it stands for; None for other lists."""
    expanded: list[Any] = []
    for item in value:
        if not (isinstance(item, list | tuple) and len(item) == 2):
            return None
        kinds, times = item
        if not (isinstance(kinds, list | tuple) and type(times) is int):
            return None
        expanded += list(kinds) * times
    return expanded

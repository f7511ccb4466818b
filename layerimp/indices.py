"""The indices of blocks: how users write them, which are possible, and how messages name them.

Indices count from 0 and are always those of the intact model.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from layerimp.errors import OptionError

_RANGE = re.compile(r"(\d+)\s*-\s*(\d+)")
_MOST_IN_A_RANGE = 10_000
"""A number of blocks that no model has. A range with more blocks is a typing error, and would fill the memory."""


def read_blocks(text: str, *, what: str = "--blocks") -> list[int]:
    """Read the blocks in a text such as `5,8-10`; a range includes its last block.

    Args:
        text: The text.
        what: The option or field that holds the text, for the error.

    Raises:
        OptionError: a part of the text is neither a block nor a range.
    """
    try:
        return [block for part in text.split(",") for block in _part(part.strip())]
    except OptionError as error:
        raise OptionError(f"{what} takes blocks such as 5,8-10, got {text!r}: {error}") from None


def _part(part: str) -> Iterable[int]:
    if part.isdecimal():
        return [int(part)]
    if not (ends := _RANGE.fullmatch(part)):
        raise OptionError(_not_a_block(part))
    first, last = int(ends[1]), int(ends[2])
    if first > last:
        raise OptionError(f"the range {part} runs backwards")
    if last - first >= _MOST_IN_A_RANGE:
        raise OptionError(f"no model has as many blocks as the range {part} names")
    return range(first, last + 1)


def _not_a_block(value: object) -> str:
    return f"{value!r} is no block; a block is a whole number, and only whole blocks can be removed"


def checked_blocks(blocks: Iterable[int], num_blocks: int, *, what: str = "block") -> tuple[int, ...]:
    """Check that blocks exist and that none is named twice; integers of NumPy and torch become `int`.

    Raises:
        OptionError: a value is no index of a block of the model, or an index occurs twice.
    """
    if isinstance(blocks, str) or not isinstance(blocks, Iterable):
        raise OptionError(f"{what}s are given as a list, such as [5, 8], got {blocks!r}")
    checked: list[int] = []
    for block in blocks:
        try:
            index = operator.index(block)
        except TypeError:
            index = None
        if index is None or isinstance(block, bool):
            raise OptionError(_not_a_block(block))
        if not 0 <= index < num_blocks:
            raise OptionError(f"{what} {index} does not exist: the model has blocks 0 to {num_blocks - 1}")
        if index in checked:
            raise OptionError(f"{what} {index} is named twice")
        checked.append(index)
    return tuple(checked)


def kept_blocks(removed: Collection[int], num_blocks: int) -> list[int]:
    """Return the blocks that are left without the blocks `removed`, in depth order."""
    return [index for index in range(num_blocks) if index not in removed]


def runs_of(blocks: Collection[int]) -> Iterator[list[int]]:
    """Yield blocks as runs of neighbours, in depth order."""
    run: list[int] = []
    for block in sorted(blocks):
        if run and block != run[-1] + 1:
            yield run
            run = []
        run.append(block)
    if run:
        yield run


def named(blocks: Sequence[int]) -> str:
    """Name blocks in words: `block 5`, `blocks 5, 6`."""
    return f"block{'s' * (len(blocks) > 1)} {', '.join(map(str, blocks))}"


def weakest_first(scores: Mapping[int, float]) -> list[int]:
    """Return blocks from the lowest score to the highest; of two equal scores the deeper block comes first."""
    return sorted(scores, key=lambda block: (scores[block], -block))

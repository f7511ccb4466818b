"""A search for the largest number of blocks that may be removed, which tries only a few numbers."""

from __future__ import annotations

from collections.abc import Callable

Holds = Callable[[int], bool]
"""Tells whether the model without a given number of blocks still meets the demand."""


def most_that_hold(holds: Holds, least: int, most: int, *, nested: bool) -> int:
    """Return the largest number between `least` and `most` such that it and every smaller number tried hold.

    If plans are nested, this is a binary search: about log2(`most`) numbers are tried. Quality is assumed to fall with
    the number of blocks; if it falls and rises again, the answer depends on which numbers are tried. If plans are not
    nested, two plans have nothing in common, so every number from `least` on is tried until one fails.

    Args:
        holds: Tries a number.
        least: The smallest number to try, 1 or more.
        most: The largest number to try.
        nested: Whether the plan for fewer blocks is the start of the plan for more.

    Returns:
        The number; 0 if `least` does not hold.
    """
    good, bad = least - 1, most + 1
    while bad - good > 1:
        middle = (good + bad) // 2 if nested else good + 1
        if holds(middle):
            good = middle
        else:
            bad = middle
    return good if good >= least else 0


def confirmed(most: int, holds: Holds, confirms: Holds, least: int) -> int:
    """Return the largest number up to `most` that holds and that other documents confirm; 0 if there is none."""
    for count in range(most, least - 1, -1):
        if holds(count) and confirms(count):
            return count
    return 0

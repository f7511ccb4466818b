"""How many blocks may go: a search that tries few numbers of them."""

from __future__ import annotations

from collections.abc import Callable

Holds = Callable[[int], bool]
"""Whether a model without so many blocks holds to what is asked of it."""


def most_that_hold(holds: Holds, least: int, most: int, *, nested: bool) -> int:
    """The largest number between `least` and `most` such that every smaller or equal one that was tried holds.

    Where plans are nested the search halves the numbers that are left: about log2(`most`) of them are tried. What lies
    between two tries is taken to fall, and on a curve that falls and rises again the answer depends on the tries. Where
    plans are not nested, two of them have nothing in common, and every number is tried from `least` on.

    Args:
        holds: Tries a number.
        least: The first number that may be tried, 1 or more.
        most: The last one.
        nested: Whether the plan for fewer blocks is the start of the plan for more.

    Returns:
        The number; 0 where `least` does not hold.
    """
    good, bad = least - 1, most + 1
    while bad - good > 1:
        middle = (good + bad) // 2 if nested else good + 1
        if holds(middle):
            good = middle
        else:
            bad = middle
    return good if good >= least else 0


def confirmed(found: int, holds: Holds, confirms: Holds, least: int) -> int:
    """The largest number up to `found` that holds, and that other documents confirm; 0 where there is none."""
    for count in range(found, least - 1, -1):
        if holds(count) and confirms(count):
            return count
    return 0

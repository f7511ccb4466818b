"""What a check says, and how it compares numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from layerimp.scorer import Importance

ROUNDING = 1e-8
"""Relative to a scorer's largest number: two ways to add up the same float64 numbers lie closer than that."""


class BrokenError(Exception):
    """A contract is broken; the text says how."""


def require(kept: bool, how: str) -> None:
    """Raise `BrokenError` with the text `how`, unless the contract was kept."""
    if not kept:
        raise BrokenError(how)


def require_same(found: Importance, expected: Importance, when: str) -> None:
    """Require equal scores and columns, but for rounding."""
    require(
        found.columns.keys() == expected.columns.keys(),
        f"the columns are {sorted(found.columns)} {when}, and {sorted(expected.columns)} otherwise",
    )
    pairs = {"score": (found.scores, expected.scores)}
    pairs |= {f"column {name}": (found.columns[name], values) for name, values in expected.columns.items()}
    for part, (ours, theirs) in pairs.items():
        require(len(ours) == len(theirs), f"{part}: {len(ours)} values {when}, and {len(theirs)} otherwise")
        scale = max(map(abs, theirs), default=0.0) or 1.0
        for block, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            require(
                abs(one - other) <= ROUNDING * scale,
                f"the {part} of block {block} is {one:.6g} {when}, and {other:.6g} otherwise",
            )

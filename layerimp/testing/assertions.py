"""Assertions of the checks: numbers are equal, and models and random generators stay as they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from layerimp.blocks.snapshot import Snapshot

if TYPE_CHECKING:
    from torch import Tensor

    from layerimp.scorer import Importance

ROUNDING = 1e-8
"""The tolerance relative to a scorer's largest number. Two ways to add up the same float64 numbers differ by less."""


class BrokenError(Exception):
    """A contract is broken; the message says how."""


def require(kept: bool, how: str) -> None:
    """Raise `BrokenError` with the message `how` unless the contract was kept."""
    if not kept:
        raise BrokenError(how)


def require_same(actual: Importance, expected: Importance, when: str) -> None:
    """Require scores and columns that are equal up to rounding."""
    require(
        actual.columns.keys() == expected.columns.keys(),
        f"the columns are {sorted(actual.columns)} {when}, and {sorted(expected.columns)} otherwise",
    )
    pairs = {"score": (actual.scores, expected.scores)}
    pairs |= {f"column {name}": (actual.columns[name], values) for name, values in expected.columns.items()}
    for part, (ours, theirs) in pairs.items():
        require(len(ours) == len(theirs), f"{part}: {len(ours)} values {when}, and {len(theirs)} otherwise")
        scale = max(map(abs, theirs), default=0.0) or 1.0
        for block, (own, other) in enumerate(zip(ours, theirs, strict=True)):
            require(
                abs(own - other) <= ROUNDING * scale,
                f"the {part} of block {block} is {own:.6g} {when}, and {other:.6g} otherwise",
            )


@contextmanager
def leaving_the_generator() -> Iterator[None]:
    """Require that torch's global random generator stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(20241102)
        before = torch.get_rng_state()
        yield
        require(torch.equal(before, torch.get_rng_state()), "torch's global random generator has moved on")


def require_unharmed(model: Any, snapshot: Snapshot, weights: dict[str, Tensor]) -> None:
    """Require that a model is as it was at the snapshot, with the same weights."""
    now = Snapshot.of(model)
    changed = snapshot.traces(now) + snapshot.damage(now)
    changed += [f"the value of {name}" for name, value in model.state_dict().items() if not _same(value, weights[name])]
    require(not changed, f"of the model, {', '.join(changed[:3])} changed")


def _same(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and torch.equal(first, second)

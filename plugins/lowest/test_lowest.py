"""The pruner `lowest`: it keeps the contract of pruners, and takes the lowest scores."""

from __future__ import annotations

import pytest
from layerimp_lowest import Lowest, layerimp_pruners

from layerimp import Importance
from layerimp.pruner import Budget
from layerimp.testing import Check, parametrize


@parametrize(Lowest)
def test_contract(check: Check) -> None:
    check()


def test_hook() -> None:
    assert layerimp_pruners() == [Lowest]


@pytest.mark.parametrize(
    ("budget", "blocks"),
    [
        (Budget.exactly(1, 4), [2]),
        (Budget.exactly(3, 4), [2, 3, 1]),  # of two equal scores the deeper goes first
        (Budget.exactly(2, 4, protect=(2,)), [3, 1]),
        (Budget.exactly(2, 4, forced=(0,)), [0, 2]),
        (Budget.exactly(3, 4, forced=("1/2",)), ["1/2", 3, 0]),  # of its blocks nothing more may go
        (Budget.exactly(3, 4, forced=("1/2", "1.attn,2.mlp")), ["1/2", "1.attn,2.mlp", 3]),
    ],
)
def test_the_lowest_go(budget: Budget, blocks: list[int]) -> None:
    importance = Importance(scores=[9.0, 1.0, 0.5, 1.0])
    assert Lowest().plan(lambda _removed: importance, budget).blocks == blocks

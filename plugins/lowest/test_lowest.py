"""The pruner `lowest`: it keeps the contract of pruners, and takes the lowest scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layerimp_lowest import Lowest, layerimp_pruners

from layerimp import Importance
from layerimp.pruner import Budget


def test_hook() -> None:
    assert layerimp_pruners() == [Lowest]


@pytest.mark.parametrize(
    ("budget", "blocks"),
    [
        (Budget.exactly(1, 4), [2]),
        (Budget.exactly(3, 4), [2, 3, 1]),  # of two equal scores the deeper goes first
        (Budget.exactly(2, 4, protect=(2,)), [3, 1]),
        (Budget.exactly(2, 4, forced=(0,)), [0, 2]),
    ],
)
def test_the_lowest_go(budget: Budget, blocks: list[int]) -> None:
    importance = Importance(scores=[9.0, 1.0, 0.5, 1.0])
    assert Lowest().plan(lambda _removed: importance, budget).blocks == blocks


@settings(derandomize=True, max_examples=150, deadline=None, database=None)
@given(data=st.data())
def test_of_equal_scores_the_deeper_block_goes_beside_the_forced_ones(data: st.DataObject) -> None:
    scores = data.draw(st.lists(st.integers(-2, 2).map(float), min_size=2, max_size=12))
    roles = data.draw(st.lists(st.sampled_from("free forced protected".split()), min_size=len(scores)))
    forced, protected = ([b for b in range(len(scores)) if roles[b] == role] for role in ("forced", "protected"))
    most = min(len(scores) - 1, len(scores) - len(protected))
    if len(forced) > most or most < 1:
        return
    count = data.draw(st.integers(max(1, len(forced)), most))
    budget = Budget(len(scores), count, frozenset(protected), tuple(forced))
    chosen = Lowest().plan(lambda _removed: Importance(scores=scores), budget).blocks
    free = [int(b) for b in np.lexsort((-np.arange(len(scores)), np.array(scores))) if roles[b] == "free"]
    assert chosen == forced + free[: count - len(forced)]

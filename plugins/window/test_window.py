"""The pruner `window` against a search through every run."""

from __future__ import annotations

from itertools import combinations

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from layerimp_window import Window

from layerimp import Importance
from layerimp.errors import OptionError
from layerimp.pruner import Budget


def plan(scores: list[float], budget: Budget, **spans: list[float]) -> list[int]:
    importance = Importance(scores=scores, spans={int(length[1:]): values for length, values in spans.items()})
    return Window().plan(lambda _removed: importance, budget).blocks


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=3, max_size=8), st.data())
def test_the_best_of_all_runs(scores: list[int], data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(scores) - 1))
    protected = frozenset(data.draw(st.sets(st.integers(0, len(scores) - 1), max_size=1)))
    runs = [
        chosen
        for chosen in combinations(range(len(scores)), count)
        if chosen[-1] - chosen[0] == count - 1 and not protected & set(chosen)
    ]
    budget = Budget(len(scores), count, protected)
    if not runs:
        with pytest.raises(OptionError, match="no run of"):
            plan([float(s) for s in scores], budget)
        return
    best = min(runs, key=lambda run: (sum(scores[i] for i in run), -run[0]))
    assert plan([float(s) for s in scores], budget) == list(best)


def test_a_window_that_the_scorer_scored_wins() -> None:
    assert plan([1.0, 1.0, 9.0, 9.0], Budget(4, 2), n2=[5.0, 4.0, 3.0]) == [2, 3]
    assert plan([1.0, 1.0, 9.0, 9.0], Budget(4, 2), n3=[5.0, 4.0]) == [0, 1]


def test_forced_blocks_are_inside() -> None:
    assert plan([1.0, 1.0, 9.0, 9.0, 9.0], Budget(5, 2, forced=(3,))) == [3, 4]
    with pytest.raises(OptionError, match="holds all that must go"):
        plan([1.0, 1.0, 9.0, 9.0], Budget(4, 2, forced=(0, 3)))

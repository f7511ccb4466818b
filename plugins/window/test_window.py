"""The pruner `window` against a search through every run."""

from __future__ import annotations

from itertools import combinations

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from layerimp_window import Window

from layerimp import Importance, PrunePlan
from layerimp.errors import OptionError
from layerimp.pruner import Budget
from layerimp.steps import Step, Sublayer, checked_steps, removed_by


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


def test_a_seam_is_in_no_window() -> None:
    with pytest.raises(OptionError, match="a window is a run of whole blocks, and 0/1 is none; choose another pruner"):
        plan([1.0, 1.0, 9.0, 9.0], Budget.exactly(2, 4, forced=("0/1",)))


modest = settings(derandomize=True, max_examples=60, deadline=None, database=None)


def with_seams(scores: list[float], budget: Budget, **spans: list[float]) -> PrunePlan:
    """The plan by scores of blocks and seams, in depth order."""
    steps: list[Step] = [step for block in range(9) for step in (block, f"{block}/{block + 1}")]
    windows = {int(length[1:]): values for length, values in spans.items()}
    importance = Importance(scores=scores, blocks=steps[: len(scores)], spans=windows)
    return Window().within_budget(lambda _removed: importance, budget)


@modest
@given(st.integers(2, 6), st.data())
def test_the_best_of_all_runs_of_sublayers(size: int, data: st.DataObject) -> None:
    scores = [float(data.draw(st.integers(0, 5))) for _ in range(2 * size - 1)]
    count = data.draw(st.integers(1, size - 1))
    protected = data.draw(st.sets(st.integers(0, size - 1), max_size=1))
    runs = [range(first, first + 2 * count) for first in range(2 * (size - count) + 1)]
    allowed = [run for run in runs if not protected & {part // 2 for part in run}]
    if not allowed:
        return
    # The score at an even or an odd place is that of the block or the seam which begins with the sublayer there.
    best = min(allowed, key=lambda run: (sum(scores[first] for first in run[::2]), -run[0]))
    made = with_seams(scores, Budget.exactly(count, size, protect=sorted(protected), cuts="all"))
    assert removed_by(made.blocks) == {Sublayer.at(part) for part in best}
    assert len(checked_steps(made.blocks, size)) == count


def test_a_run_may_begin_inside_a_block() -> None:
    assert with_seams([9, 9, 9, 0, 9, 0, 9, 9, 9], Budget.exactly(2, 5, cuts="all")).blocks == ["1/2", "2/3"]
    assert with_seams([9, 9, 0, 1, 0, 1, 9, 9, 9], Budget.exactly(2, 5, cuts="all")).blocks == [1, 2]


def test_windows_at_both_parities() -> None:
    spans = {"n2": [5.0, 4.0, 5.0, 1.0, 5.0], "n1": [1.0] * 7}
    made = with_seams([0, 9, 0, 9, 9, 9, 9], Budget.exactly(2, 4, cuts="all"), **spans)
    assert (made.blocks, made.reason) == (["1/2", "2/3"], "least window of the scorer: 1")


@pytest.mark.parametrize(
    ("forced", "blocks"),
    [
        ((2,), [2, 3]),
        (("2/3",), ["2/3", "2.attn,3.mlp"]),
        (("1/2", "2/3"), ["1/2", "2/3"]),
        (("2/3", "2.attn,3.mlp"), ["2/3", "2.attn,3.mlp"]),
    ],
)
def test_a_run_holds_what_is_forced(forced: tuple[Step, ...], blocks: list[Step]) -> None:
    scores = [float(n) for n in (9, 9, 9, 4, 2, 4, 2, 9, 9)]
    assert with_seams(scores, Budget.exactly(2, 5, forced=forced, cuts="all")).blocks == blocks


def test_a_run_around_what_is_forced_closes_over_it() -> None:
    made = with_seams([9, 9, 9, 1, 9, 1, 9, 9, 9], Budget.exactly(2, 5, forced=(2,), cuts="all"))
    assert made.blocks == [2, "1.mlp,3.attn"]

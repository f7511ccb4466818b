"""The pruner `lowest`: it keeps the contract of pruners, and takes the lowest scores."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layerimp_lowest import Lowest, layerimp_pruners

from layerimp import Importance
from layerimp.errors import OptionError
from layerimp.pruner import Budget
from layerimp.steps import Step, candidates, checked_steps, sublayers_of, touched_by


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


def test_what_overlaps_is_passed_over() -> None:
    scores = {0: 9.0, "0/1": 1.0, 1: 2.0, "1/2": 3.0, 2: 4.0, "2/3": 5.0, 3: 6.0}
    importance = Importance(scores=list(scores.values()), blocks=list(scores))
    made = Lowest().plan(lambda _removed: importance, Budget.exactly(3, 4, cuts="all"))
    assert made.blocks == ["0/1", "1/2", "2/3"]
    assert made.reason == "lowest scores first; passed over, since a part of them had gone: 1, 2"
    forced = Lowest().plan(lambda _removed: importance, Budget.exactly(2, 4, forced=(1,), cuts="all"))
    assert forced.blocks == [1, 2]


def test_what_is_left_is_scored_again_where_nothing_that_was_scored_fits() -> None:
    scores: dict[Step, float] = {0: 8.0, "0/1": 0.0, 1: 8.0, "1/2": 8.0, 2: 1.0, "2/3": 8.0, 3: 8.0, "3/4": 2.0, 4: 8.0}
    asked: list[list[Step]] = []

    def scoring(removed: list[Step]) -> Importance:
        asked.append(list(removed))
        if not removed:
            return Importance(list(scores.values()), list(scores))
        return Importance([3.0, 2.0, 3.0], ["0.attn,1.mlp", "1.mlp,3.attn", "3.attn,4.mlp"])

    assert Lowest().plan(scoring, Budget.exactly(4, 5, cuts="all")).blocks == ["0/1", 2, "3/4", "1.mlp,3.attn"]
    assert asked == [[], ["0/1", 2, "3/4"]]


def test_too_few_are_left() -> None:
    with pytest.raises(OptionError, match="2 blocks are to go, but only 1 are not protected"):
        Lowest().plan(lambda _removed: Importance([1.0, 2.0]), Budget(2, 2, frozenset({0})))


@settings(derandomize=True, max_examples=80, deadline=None, database=None)
@given(seed=st.integers(0, 10**6), size=st.integers(2, 8), data=st.data())
def test_every_plan_takes_turns_keeps_to_its_budget_and_begins_longer_ones(
    seed: int, size: int, data: st.DataObject
) -> None:
    protect = data.draw(st.sets(st.integers(0, size - 1), max_size=1))

    def scoring(removed: Sequence[Step]) -> Importance:
        blocks, seams = candidates(removed, size, "all")
        steps = sorted([*blocks, *seams], key=sublayers_of)
        return Importance([random.Random(f"{seed} {removed} {step}").random() for step in steps], steps)

    plans = [
        Lowest().within_budget(scoring, Budget.exactly(count, size, protect=sorted(protect), cuts="all")).blocks
        for count in range(1, size)
    ]
    for fewer, more in zip([[], *plans], plans, strict=False):
        assert len(checked_steps(more, size)) == len(more)
        assert more[:-1] == fewer
        assert protect.isdisjoint(touched_by(more))
    scored = scoring(())
    rank = {step: place for place, step in enumerate(scored.weakest_first())}
    first = [step for step in plans[-1] if step in rank]
    gone: set[object] = set()
    for step in first:  # the weakest of those that do not overlap with what went before
        fitting = [
            candidate
            for candidate in rank
            if gone.isdisjoint(sublayers_of(candidate)) and protect.isdisjoint(touched_by([candidate]))
        ]
        assert step == min(fitting, key=lambda candidate: rank[candidate])
        gone.update(sublayers_of(step))

"""The pruner `greedy`, against loops that remove blocks for real."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layerimp_baselines import Perplexity
from layerimp_greedy import Greedy, Search
from pydantic import ValidationError
from support.damages import Damage
from support.tiny import tiny
from torch.nn.functional import cross_entropy

import layerimp
from layerimp import Importance
from layerimp.errors import OptionError
from layerimp.indices import kept_blocks, runs_of
from layerimp.pruner import Budget
from layerimp.scoring.engine import measure
from layerimp.surgery.removal import pruned
from layerimp.testing import BLOCKS, Check, padded_batch, parametrize


def loss(model: Any, inputs: dict[str, torch.Tensor]) -> float:
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)[:, 1:]
    with torch.no_grad():
        logits = model(**inputs).logits[:, :-1]
    return float(cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100))


@pytest.mark.parametrize("ends", [0, 1])
def test_with_perplexity_it_is_sleb(ends: int) -> None:
    model, inputs = tiny("llama", dtype=torch.float64, num_hidden_layers=6), padded_batch()
    stack = layerimp.find_blocks(model)

    def scoring(removed: Sequence[int]) -> Importance:
        scorer = Perplexity(len(stack) - len(removed))
        return measure(stack, [inputs], {"perplexity": scorer}, removed=removed)["perplexity"]

    expected: list[int] = []
    for _ in range(3):
        losses = {}
        for block in range(ends, 6 - ends):
            if block not in expected:
                with pruned(model, [*expected, block]):
                    losses[block] = loss(model, inputs)
        expected.append(min(losses, key=lambda block: losses[block]))
    plan = Greedy(Greedy.Config(protect_first=ends, protect_last=ends)).plan(scoring, Budget(6, 3))
    assert plan.blocks == expected


class Asked:
    """Scores by a table, and remembers what was asked for."""

    def __init__(self, *scores: float) -> None:
        self.scores, self.calls = scores, []

    def __call__(self, removed: Sequence[int], among: Collection[int] | None = None) -> Importance:
        self.calls.append(list(removed))
        kept = [block for block in range(len(self.scores)) if block not in removed]
        return Importance(scores=[self.scores[block] for block in kept], blocks=kept)


def test_it_scores_again_after_each_removal() -> None:
    scoring = Asked(3, 1, 2, 1)
    assert Greedy().plan(scoring, Budget(4, 3)).blocks == [3, 1, 2]
    assert scoring.calls == [[], [3], [3, 1]]


def test_forced_blocks_go_first_and_protected_ones_stay() -> None:
    scoring = Asked(0, 1, 2, 3, 4)
    plan = Greedy().plan(scoring, Budget(5, 3, protected=frozenset({0, 2}), forced=(4,)))
    assert plan.blocks == [4, 1, 3]
    assert scoring.calls == [[4], [4, 1]]
    assert Greedy().plan(scoring, Budget(5, 2, forced=(4, 3))).blocks == [4, 3]


def test_ends() -> None:
    assert Greedy(Greedy.Config(protect_first=2)).plan(Asked(0, 1, 2, 3), Budget(4, 2)).blocks == [2, 3]
    assert Greedy(Greedy.Config(protect_last=2)).plan(Asked(3, 2, 1, 0), Budget(4, 2)).blocks == [1, 0]
    both = Greedy(Greedy.Config(protect_first=1, protect_last=2))
    with pytest.raises(OptionError, match="2 blocks are to go, but only 1 of 4 are not protected"):
        both.plan(Asked(0, 0, 0, 0), Budget(BLOCKS, 2))
    with pytest.raises(OptionError, match="block 3 is to be removed, and protected by"):
        both.plan(Asked(0, 0, 0, 0), Budget(BLOCKS, 1, forced=(3,)))
    with pytest.raises(OptionError, match="only 0 of 4"):
        Greedy(Greedy.Config(protect_last=9)).plan(Asked(0, 0, 0, 0), Budget(BLOCKS, 1))


modest = settings(derandomize=True, max_examples=60, deadline=None, database=None)


def searched(scoring: Damage, budget: Budget, **options: float) -> list[int]:
    return Greedy(Greedy.Config(**options)).within_budget(scoring, budget).blocks


@modest
@given(seed=st.integers(0, 10**6), count=st.integers(1, 5))
def test_each_removal_is_the_best_of_all_possible_ones(seed: int, count: int) -> None:
    scoring = Damage(6, seed=seed)
    blocks = searched(scoring, Budget.exactly(count, 6))
    for end in range(count):
        rises = {way[end]: scoring.of(way) for way in scoring.sequences(end + 1, tuple(blocks[:end]))}
        assert blocks[end] == min(rises, key=lambda block: rises[block])


@modest
@given(seed=st.integers(0, 10**6), tried=st.integers(1, 9))
def test_an_exchange_is_never_worse_than_none_and_never_better_than_the_best(seed: int, tried: int) -> None:
    scoring, budget = Damage(6, seed=seed), Budget.exactly(3, 6)
    costs = [scoring.of(searched(scoring, budget, exchange=exchange)) for exchange in (0, tried)]
    best = min(map(scoring.of, scoring.sequences(3)))
    assert costs[0] >= costs[1] - 1e-9
    assert costs[1] >= best - 1e-9


def test_an_exchange_finds_what_one_removal_at_a_time_misses() -> None:
    def cost(removed: frozenset[int]) -> float:
        if removed == {0, 4}:
            return 0.25
        return len(removed) - (0.75 if removed == {2} else 0.0)

    scoring, budget = Damage(5, cost), Budget.exactly(2, 5)
    assert scoring.of(searched(scoring, budget)) == 2.0
    assert min(map(scoring.of, scoring.sequences(2))) == 0.25
    made = Greedy(Greedy.Config(exchange=9)).plan(scoring, budget)
    assert set(made.blocks) == {0, 4}
    assert made.reason == "lowest score after each removal, with 1 exchange"


def test_what_is_forced_is_not_undone() -> None:
    for forced in ((1,), (0, 3)):
        for seed in range(10):
            scoring, budget = Damage(5, seed=seed), Budget.exactly(4, 5, forced=forced)
            assert tuple(searched(scoring, budget, exchange=2)[: len(forced)]) == forced


@modest
@given(
    seed=st.integers(0, 10**6),
    exchange=st.integers(0, 2),
    penalty=st.sampled_from([0.0, 0.3, 5.0]),
    data=st.data(),
)
def test_every_plan_keeps_to_its_budget(seed: int, exchange: int, penalty: float, data: st.DataObject) -> None:
    size = data.draw(st.integers(3, 7))
    protect = data.draw(st.sets(st.integers(0, size - 1), max_size=1))
    scoring = Damage(size, seed=seed)
    budget = Budget.exactly(data.draw(st.integers(1, size - 1)), size, protect=sorted(protect))
    blocks = searched(scoring, budget, exchange=exchange, gap_penalty=penalty)
    assert len(set(blocks)) == budget.count
    assert protect.isdisjoint(blocks)
    assert len(set(map(frozenset, scoring.asked))) == len(scoring.asked)  # nothing is scored twice


def test_plans_are_nested_without_an_exchange_alone() -> None:
    assert Greedy.nested
    assert Greedy(Greedy.Config(gap_penalty=1)).nested
    assert not Greedy(Greedy.Config(exchange=1)).nested
    scoring = Damage(6, seed=3)
    plans = [searched(scoring, Budget.exactly(count, 6), gap_penalty=0.2) for count in range(1, 6)]
    assert all(more[:-1] == fewer for fewer, more in pairwise(plans))


def test_a_penalty_on_long_gaps() -> None:
    scoring = Damage(6, lambda removed: float(sum(2 * abs(block - 2) for block in removed)))
    three = Budget.exactly(3, 6)
    assert set(searched(scoring, three)) == {1, 2, 3}
    assert all(len(run) == 1 for run in runs_of(searched(scoring, three, gap_penalty=100)))
    # Two removals that are joined by a third share a gap with it and with each other.
    assert Search(scoring, three, frozenset(), 1.0)._costs((1, 3))[2] == 3.0
    assert Search(scoring, three, frozenset(), 1.0)._costs((1, 3))[4] == 5.0
    assert Search(scoring, three, frozenset(), 1.0)._costs((1,))[2] == 1.0


@parametrize(Greedy(Greedy.Config(exchange=2)), Greedy(Greedy.Config(gap_penalty=0.5, protect_first=1)))
def test_contract(check: Check) -> None:
    check()


class Growing:
    """Scores that grow with each removal, by how near that is; gives what was asked for, and remembers how much."""

    def __init__(self, num_blocks: int, seed: int = 0) -> None:
        self.base = torch.rand(num_blocks, generator=torch.manual_seed(seed)).tolist()
        self.scored: list[int] = []

    def __call__(self, removed: Sequence[int], among: Collection[int] | None = None) -> Importance:
        blocks = [block for block in kept_blocks(removed, len(self.base)) if among is None or block in among]
        self.scored.append(len(blocks))
        scores = [self.base[block] + sum(1 / (1 + 2 * abs(gone - block)) for gone in removed) for block in blocks]
        return Importance(scores=scores, blocks=blocks)


@pytest.mark.parametrize("seed", range(5))
def test_scores_that_only_grow_need_not_all_be_measured_again(seed: int) -> None:
    """A block that is not scored again cannot have become the cheapest."""
    every, some = Growing(16, seed), Growing(16, seed)
    budget = Budget.exactly(6, 16, protect=(2,), forced=(9,))
    expected = Greedy().plan(every, budget)
    assert Greedy(Greedy.Config(rescored=2)).plan(some, budget) == expected
    assert sum(some.scored) < 0.7 * sum(every.scored)


@pytest.mark.parametrize("option", ["rescored", "rows"])
def test_an_exchange_needs_all_scores_on_one_text(option: str) -> None:
    with pytest.raises(ValidationError, match=f"exchange .* {option}"):
        Greedy.Config(exchange=1, **{option: 2})


@pytest.mark.parametrize("rescored", [None, 2])
def test_forced_blocks_that_are_all_that_goes_need_no_score(rescored: int | None) -> None:
    scoring = Growing(8)
    budget = Budget.exactly(3, 8, forced=(2, 4, 6))
    assert Greedy(Greedy.Config(rescored=rescored)).plan(scoring, budget).blocks == [2, 4, 6]
    assert not scoring.scored


def test_a_block_beside_the_removal_is_scored_again_even_if_it_was_dear() -> None:
    """Two neighbours can be repaired together, so that the second costs less than before."""

    def scoring(removed: Sequence[int], among: Collection[int] | None = None) -> Importance:
        scores = {0: 3.0, 1: 1.0, 2: 9.0, 3: 2.0, 4: 5.0}
        if 1 in removed:
            scores[2] = 0.5
        left = [block for block in scores if block not in removed and (among is None or block in among)]
        return Importance(scores=[scores[block] for block in left], blocks=left)

    assert Greedy(Greedy.Config(rescored=1)).plan(scoring, Budget(5, 2)).blocks == [1, 2]


def test_exchange_needs_all_scores() -> None:
    with pytest.raises(ValueError, match="rescored leaves some out"):
        Greedy.Config(exchange=1, rescored=2)

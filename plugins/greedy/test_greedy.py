"""The pruner `greedy`, against loops that remove blocks for real."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from layerimp_baselines import Perplexity
from layerimp_greedy import Greedy
from tiny import tiny
from torch.nn.functional import cross_entropy

import layerimp
from layerimp import Importance
from layerimp.errors import OptionError
from layerimp.pruner import Budget
from layerimp.scoring.engine import measure
from layerimp.surgery.removal import pruned
from layerimp.testing import BLOCKS, padded_batch


def loss(model: Any, one: dict[str, torch.Tensor]) -> float:
    labels = one["input_ids"].masked_fill(one["attention_mask"] == 0, -100)[:, 1:]
    with torch.no_grad():
        logits = model(**one).logits[:, :-1]
    return float(cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100))


@pytest.mark.parametrize("ends", [0, 1])
def test_with_perplexity_it_is_sleb(ends: int) -> None:
    model, one = tiny("llama", dtype=torch.float64, num_hidden_layers=6), padded_batch()
    stack = layerimp.find_blocks(model)

    def scoring(removed: Sequence[int]) -> Importance:
        scorer = Perplexity(len(stack) - len(removed))
        return measure(stack, [one], {"perplexity": scorer}, removed=removed)["perplexity"]

    expected: list[int] = []
    for _ in range(3):
        losses = {}
        for block in range(ends, 6 - ends):
            if block not in expected:
                with pruned(model, [*expected, block]):
                    losses[block] = loss(model, one)
        expected.append(min(losses, key=lambda block: losses[block]))
    found = Greedy(Greedy.Config(protect_first=ends, protect_last=ends)).plan(scoring, Budget(6, 3))
    assert found.blocks == expected


class Asked:
    """Scores by a table, and remembers what was asked for."""

    def __init__(self, *scores: float) -> None:
        self.scores, self.calls = scores, []

    def __call__(self, removed: Sequence[int]) -> Importance:
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


def test_a_forced_seam_goes_first_and_its_blocks_are_left_alone() -> None:
    scoring = Asked(3, 0, 0, 1)
    plan = Greedy().plan(scoring, Budget.exactly(3, 4, forced=("1/2",)))
    assert plan.blocks == ["1/2", 3, 0]
    assert scoring.calls == [["1/2"], ["1/2", 3]]
    with pytest.raises(OptionError, match="3 blocks are to go, but only 2 of 4 are not protected"):
        Greedy(Greedy.Config(protect_first=1)).plan(scoring, Budget.exactly(3, 4, forced=("1/2",)))
    with pytest.raises(OptionError, match="a half of block 0 is to be removed, and protected by"):
        Greedy(Greedy.Config(protect_first=1)).plan(scoring, Budget.exactly(2, 4, forced=("0/1",)))

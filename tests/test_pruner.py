"""Budgets and plans: how many blocks are removed, and which."""

from __future__ import annotations

from decimal import ROUND_HALF_DOWN, Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from layerimp.errors import InputError, LayerimpError, OptionError, PluginError
from layerimp.pruner import Budget, PrunePlan, Pruner
from layerimp.scorer import Importance

modest = settings(derandomize=True, max_examples=150, deadline=None, database=None)


@pytest.mark.parametrize(
    ("ratio", "num_blocks", "count"),
    [
        (0.25, 18, 4),
        (0.25, 6, 1),
        (0.5, 5, 2),
        (0.15, 10, 1),
        (0.55, 90, 49),  # 49.50000000000001 in binary floating point
        (0.07, 50, 3),  # 3.5000000000000004
        (0.145, 100, 14),  # 14.499999999999998
        (0.2501, 18, 5),
        (0.25, 12, 3),
        (0.3, 12, 4),
        (0.99, 2, None),
        (0.75, 2, 1),
        (0.03, 18, 1),
        (1e-9, 18, None),
    ],
)
def test_a_tie_goes_to_fewer_blocks(ratio: float, num_blocks: int, count: int | None) -> None:
    if count is None:
        with pytest.raises(OptionError, match=r"rounds to none|leaves no model"):
            Budget.of(num_blocks, ratio=ratio)
    else:
        assert Budget.of(num_blocks, ratio=ratio) == Budget(num_blocks, count)


@modest
@given(tenths=st.integers(1, 9_999), num_blocks=st.integers(1, 200))
def test_ratios_are_rounded_as_the_decimals_they_are(tenths: int, num_blocks: int) -> None:
    exact = Decimal(tenths) / 10_000 * num_blocks
    expected = int(exact.quantize(Decimal(1), ROUND_HALF_DOWN))
    ratio = tenths / 10_000
    if 0 < expected < num_blocks:
        assert Budget.of(num_blocks, ratio=ratio).count == expected
    else:
        with pytest.raises(OptionError, match="leaves no model" if expected else "rounds to none"):
            Budget.of(num_blocks, ratio=ratio)


def test_a_single_block_is_needed_at_any_ratio() -> None:
    with pytest.raises(OptionError, match=r"ratio 0\.25 of 1 block rounds to none; the model needs it"):
        Budget.of(1, ratio=0.25)


@pytest.mark.parametrize(
    ("ratio", "said"),
    [
        (1, "ratio 1 is not between 0 and 1; a number of blocks is given as the count 1"),
        (3.0, "ratio 3 is not between 0 and 1; a number of blocks is given as the count 3"),
        (1.5, "ratio 1.5 is not between 0 and 1"),
        (0, "ratio 0 is not between 0 and 1"),
        (-0.25, "ratio -0.25 is not between 0 and 1"),
        (float("nan"), "ratio nan is not between 0 and 1"),
        (float("inf"), "ratio inf is not between 0 and 1"),
    ],
)
def test_a_ratio_outside_its_range_is_refused(ratio: float, said: str) -> None:
    with pytest.raises(OptionError) as caught:
        Budget.of(8, ratio=ratio)
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"blocks": [8]}, "block 8 does not exist: the model has blocks 0 to 7"),
        ({"blocks": [1], "protect": [9]}, "protected block 9 does not exist"),
        ({"ratio": 0.25, "protect": [3, 3]}, "protected block 3 is named twice"),
        ({"blocks": [1, 2], "protect": [2]}, "block 2 is both"),
        ({"blocks": range(8)}, "removing 8 of 8 blocks leaves no model; at most 7 can go"),
        ({"count": 8}, "removing 8 of 8 blocks leaves no model; at most 7 can go"),
        ({"count": 9, "protect": [0, 1]}, "removing 9 of 8 blocks leaves no model; at most 6 can go"),
        ({"count": 4, "protect": [0, 1, 2, 3, 4]}, "4 blocks are to go, but only 3 of 8 are not protected"),
        ({"count": 0}, "of 8 blocks none would be removed; ask for more"),
        ({"count": 1, "blocks": [1, 2]}, "only 1 block would go, but 2 are named"),
        ({"count": 1, "ratio": 0.25}, "ratio and count contradict each other; give one of them"),
        ({"ratio": 0.25, "blocks": [1, 2, 3]}, "only 2 blocks would go, but 3 are named"),
        ({"ratio": 0.5, "protect": [0, 1, 2, 3, 4]}, "4 blocks are to go, but only 3 of 8 are not protected"),
        ({}, "nothing is to be removed: give a ratio, a count, or blocks"),
        ({"blocks": ["5/6"]}, "^'5/6' is no block; a block is a whole number, and only whole blocks can be removed$"),
        ({"count": 2, "protect": ["5/6"]}, "^'5/6' is no block"),
    ],
)
def test_a_contradiction_is_refused(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        Budget.of(8, **asked)


def test_named_blocks_set_the_count_unless_a_ratio_or_a_count_does() -> None:
    assert Budget.of(8, blocks=[5, 3]) == Budget(8, 2, frozenset(), (5, 3))
    assert Budget.of(8, ratio=0.5, blocks=[5], protect=[0]) == Budget(8, 4, frozenset({0}), (5,))
    assert Budget.of(8, ratio=0.5, protect=[0, 1, 2, 3]).count == 4
    assert Budget.of(8, count=4, blocks=[5], protect=[0]) == Budget.of(8, ratio=0.5, blocks=[5], protect=[0])
    assert Budget.of(8, count=2, blocks=[5, 3]) == Budget.of(8, blocks=[5, 3])


class Fixed(Pruner):
    """Has one plan."""

    name = "fixed"

    def __init__(self, *blocks: int) -> None:
        super().__init__()
        self.blocks = blocks

    def plan(self, scoring: Any, budget: Budget) -> PrunePlan:
        return PrunePlan(num_blocks=budget.num_blocks, blocks=list(self.blocks))


@pytest.mark.parametrize("blocks", [(5, 1), (0, 5, 1), (1, 5, 4)])
def test_a_plan_that_keeps_its_budget(blocks: tuple[int, ...]) -> None:
    budget = Budget.of(8, count=len(blocks), blocks=[5], protect=[7])
    assert Fixed(*blocks).within_budget(lambda _: Importance([0.0] * 8), budget).blocks == list(blocks)


@pytest.mark.parametrize("blocks", [(1, 2), (5,), (5, 7), (5, 3, 1)])
def test_a_plan_that_breaks_its_budget_is_refused(blocks: tuple[int, ...]) -> None:
    budget = Budget.of(8, count=2, blocks=[5], protect=[7])
    with pytest.raises(PluginError, match="it broke its budget: 2 blocks, got "):
        Fixed(*blocks).within_budget(lambda _: Importance([0.0] * 8), budget)


def test_a_plan_survives_a_file() -> None:
    made = PrunePlan(num_blocks=6, blocks=[5, 2, 0], reason="why", scorer="avss", pruner="lowest", model="m")
    text = made.model_dump_json()
    assert '"schema_version":"layerimp.plan/2"' in text
    assert '"blocks":[5,2,0]' in text
    assert PrunePlan.model_validate_json(text) == made
    with pytest.raises(ValidationError, match="frozen"):
        made.reason = "another"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"num_blocks": 4, "blocks": [4]}, "block 4 does not exist: the model has blocks 0 to 3"),
        ({"num_blocks": 2, "blocks": [0, 1]}, "leaves no model"),
        ({"num_blocks": 0, "blocks": []}, "greater than or equal to 1"),
        ({"num_blocks": 4, "blocks": [1.5]}, "1.5 is no block"),
        ({"num_blocks": 3, "blocks": ["0/1"]}, "'0/1' is no block"),
        ({"num_blocks": 4}, "blocks"),
        ({"num_blocks": 4, "blocks": [1], "ratio": 0.5}, "ratio"),
        ({"num_blocks": 4, "blocks": [1], "schema_version": "layerimp.plan/1"}, "layerimp.plan/2"),
        ({"num_blocks": 4, "blocks": [1], "schema_version": "layerimp.plan/3"}, "layerimp.plan/2"),
    ],
)
def test_an_unsound_plan_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises((ValidationError, LayerimpError), match=said):
        PrunePlan(**values)


def test_the_most_that_a_budget_can_take() -> None:
    assert Budget.exactly(1, 6).most == 5
    assert Budget.exactly(1, 6, protect=(0, 5)).most == 4
    assert Budget.exactly(1, 6, forced=[2]).most == 5
    most = Budget.exactly(2, 6, forced=[2], protect=(0, 1)).most
    assert most == Budget.exactly(4, 6, forced=[2], protect=(0, 1)).count
    with pytest.raises(InputError):
        Budget.exactly(5, 6, forced=[2], protect=(0, 1))

"""The blocks of a plan, and what healing brought back, in words."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from support.grids import findings

from layerimp.report import words
from layerimp.report.results.models import Amount
from layerimp.report.words import amounts_asked, between, number, to_either_side, two_digits


@pytest.mark.parametrize(("blocks", "shown"), [([], ""), ([5], "5"), ([9, 2, 7, 8], "2, 7-9"), ([4, 3], "3-4")])
def test_removed_blocks_are_listed_in_depth_order(blocks: list[int], shown: str) -> None:
    assert words.ranges(blocks) == shown


@pytest.mark.parametrize(("block", "mark"), [(0, ""), (3, "✗ 1st"), (5, "✗ 2nd"), (9, "✗ 3rd")])
def test_marks(block: int, mark: str) -> None:
    assert words.marked(block, [3, 5, 9]) == mark


@pytest.mark.parametrize(
    ("before", "healed", "end"),
    [
        (5.0, 4.0, "; 50% had come back before this healing"),
        (4.0, 5.0, "; 75% had come back before this healing, which made the model worse"),
        (5.0, 5.0, "; 50% had come back before this healing, which changed nothing"),
    ],
)
def test_an_earlier_healing_is_told_from_this_one(before: float, healed: float, end: str) -> None:
    loss = {"intact": 3.0, "pruned": 7.0, "healed_before": before, "healed": healed}
    said = words.recovery(loss, None, (7.0 - healed) / 4.0)
    assert said.startswith(f"{(7.0 - healed) / 4.0:.0%} of the lost loss came back on the held-out rows (")
    assert said.endswith(end)


def test_a_classifier_may_change_without_another_accuracy() -> None:
    loss = {"intact": 0.2, "pruned": 0.9, "healed_before": 0.6, "healed": 0.5}
    accuracy = {"intact": 0.9, "pruned": 0.5, "healed_before": 0.7, "healed": 0.7}
    said = words.recovery(loss, accuracy, 0.5)
    assert said.startswith("50% of the lost accuracy came back")
    assert said.endswith("; 50% had come back before this healing")


def test_every_ratio_has_its_share_of_the_parameters(tmp_path: Path) -> None:
    """Wherever a share of the blocks is named, the share of the parameters stands beside it."""
    results = findings(tmp_path, counts=[1], ratios=[0.5], repeats=2)
    asked = amounts_asked(results)
    assert [text.partition(" (")[0] for text in asked] == ["1 block", "50% of blocks"]
    assert all(re.search(r"\(\d+\.\d% of parameters\)$", text) for text in asked)
    frame = results.to_pandas().query("kind == 'quality' and scorer != 'original'")
    assert (frame["removed_parameters_low"] <= frame["removed_parameters_high"]).all()
    assert (frame["removed_parameters_high"] < 1).all()
    assert between(0.1841, 0.1842) == "18.4%"
    assert between(0.184, 0.2) == "18.4% to 20.0%"


@pytest.mark.parametrize(
    ("amount", "said"),
    [
        (0.25, "without 25% of blocks"),
        (1, "without 1 block"),
        (3, "without 3 blocks"),
        ("blocks=2", "without block 2"),
        ("blocks=2,7", "without blocks 2, 7"),
        ("plan", "without the blocks of the plan"),
        ("bytes=6GB, parameters=0.5", "at bytes=6GB, parameters=0.5"),
        ("keep=agreement=0.9", "at keep=agreement=0.9"),
    ],
)
def test_an_amount_reads_well_in_a_sentence(amount: Amount, said: str) -> None:
    assert words.without(amount) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.0, "0.000"),
        (0.9, "0.9000"),
        (12.3456, "12.35"),
        (123456.7, "123457"),
        (4.7e9, "4.700e+09"),
        (1e-5, "1.000e-05"),
        (0.00094, "0.0009400"),
        (math.inf, "∞"),
        (-math.inf, "-∞"),
    ],
)
def test_numbers_are_short(value: float, said: str) -> None:
    assert number(value) == said


def test_an_interval_has_two_sides_where_they_differ() -> None:
    assert to_either_side(1.0, (0.9, 1.1), two_digits) == "± 0.10"
    assert to_either_side(10.0, (7.0, 14.0), two_digits) == "+4.0 −3.0"
    assert to_either_side(1.0, (1.0, 1.0), two_digits) == ""
    assert to_either_side(1.0, (0.9, math.inf), two_digits) == to_either_side(1.0, None, two_digits) == ""

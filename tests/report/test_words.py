"""The cuts of a plan, and what healing brought back, in words."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.grids import findings

from layerimp.report import words
from layerimp.report.results.models import Amount
from layerimp.report.words import amounts_asked, between, number, to_either_side, two_digits
from layerimp.steps import Step, Sublayer, kept_halves, simplest, steps_of


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([], ""),
        ([5], "5"),
        ([9, 2, 7, 8], "2, 7-9"),
        ([19, "17/18", 3, 4], "3-4, 17/18, 19"),
        (["5/6", "4/5"], "4/5, 5/6"),
        ([5, "4.mlp,6.attn"], "4/5, 5/6"),  # the same removal
        (["17/18", "17.attn,18.mlp"], "17-18"),  # nothing is left of either
        (["17/18", 16], "16, 17/18"),
    ],
)
def test_what_goes_is_said_in_depth_order(steps: list[Step], said: str) -> None:
    assert words.ranges(steps) == said
    assert words.whole(steps) == ("/" not in said)


def test_what_joins_is_said() -> None:
    assert list(words.seams([3, "17/18"])) == [
        "seam 17/18: the MLP of block 17 and the attention of block 18; the attention of 17 and the MLP of 18 now "
        "form one block"
    ]
    (sentence,) = words.seams(["17/18", "16/17"])
    assert sentence.startswith(
        "seams 16/17, 17/18: all from the MLP of block 16 to the attention of block 18; the attention"
    )
    assert sentence.endswith("attention of 16 and the MLP of 18 now form one block")
    assert list(words.seams([3, "17/18", "17.attn,18.mlp"])) == []


def test_where_blocks_come_from() -> None:
    assert list(words.sources([12, "17/18"], 30)) == [
        ("0-11", "0-11", "0-11"),
        ("12-15", "13-16", "13-16"),
        ("16", "17", "18"),
        ("17-27", "19-29", "19-29"),
    ]
    assert list(words.sources(["0/1", "1/2"], 3)) == [("0", "0", "2")]
    assert list(words.sources(["0/1", "2/3"], 4)) == [("0", "0", "1"), ("1", "2", "3")]


@st.composite
def removals(draw: Any) -> tuple[list[Step], int]:
    """Steps that can be removed together, and the number of blocks."""
    num_blocks = draw(st.integers(2, 9))
    depths = [draw(st.booleans()) for _ in range(2 * num_blocks)]
    steps: list[Step] = []
    for run in re.finditer("1+", "".join("01"[gone] for gone in depths)):
        end = run.end() - (run.end() - run.start()) % 2
        steps += steps_of([Sublayer.at(depth) for depth in range(run.start(), end)])
    return draw(st.permutations(steps)), num_blocks


@settings(derandomize=True, max_examples=200, deadline=None, database=None)
@given(removals())
def test_words_say_what_the_steps_say(removal: tuple[list[Step], int]) -> None:
    steps, num_blocks = removal
    # The ranges name the same removal: a reader who types them out gets the same model.
    spelled: list[Step] = []
    for part in words.ranges(steps).split(", ") if steps else []:
        first, _, last = part.partition("-")
        spelled += [part] if "/" in part else range(int(first), int(last or first) + 1)
    assert spelled == simplest(steps)
    # So does the table of the sources.
    halves = []
    for block, *sources in words.sources(steps, num_blocks):
        ends = [tuple(map(int, (text if "-" in text else f"{text}-{text}").split("-"))) for text in (block, *sources)]
        assert ends[0][0] == len(halves)
        halves += list(zip(*(range(first, last + 1) for first, last in ends[1:]), strict=True))
        assert ends[0][1] == len(halves) - 1
    assert halves == kept_halves(steps, num_blocks)
    joined = [(int(attention), int(mlp)) for attention, mlp in halves if attention != mlp]
    said = re.findall(r"the attention of (\d+) and the MLP of (\d+) now form", " ".join(words.seams(steps)))
    assert [(int(attention), int(mlp)) for attention, mlp in said] == joined


@pytest.mark.parametrize(
    ("scored", "mark"),
    [
        (0, ""),
        (3, "✗ 1st"),
        (5, "½ 2nd (5/6)"),
        (6, "½ 2nd (5/6)"),
        (8, "½ 3rd (8/9)"),
        (9, "✗ 3rd (8/9), 4th (9/10)"),
        ("5/6", "✗ 2nd"),
        ("6/7", ""),
        ("9/10", "✗ 4th"),
        ("2/3", ""),  # it cannot be removed any more, as the mark of block 3 shows
    ],
)
def test_marks(scored: Step, mark: str) -> None:
    taken: list[Step] = [3, "5/6", "8/9", "9/10"]
    assert words.marked(scored, taken) == mark


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
        ("blocks=2,7.mlp,8.attn", "without 2, 7/8"),
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

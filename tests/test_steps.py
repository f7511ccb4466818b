"""How steps are written, read and checked, and what they leave."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layerimp.errors import OptionError
from layerimp.steps import (
    Step,
    Sublayer,
    candidates,
    checked_steps,
    kept_halves,
    left,
    named,
    read_steps,
    removed_by,
    runs_of,
    simplest,
    step_of,
    steps_of,
    sublayer_units,
    sublayers_of,
    touched_by,
    untouched,
)

modest = settings(derandomize=True, max_examples=200, deadline=None, database=None)


@st.composite
def removals(draw: st.DrawFn) -> tuple[int, list[Step]]:
    """A number of blocks, and steps that can be taken one after another."""
    count = draw(st.integers(2, 9))
    row = [Sublayer.at(depth) for depth in range(2 * count)]
    steps: list[Step] = []
    for _ in range(draw(st.integers(0, count - 1))):
        at = draw(st.integers(0, len(row) - 2))
        steps.append(step_of(row[at : at + 2]))
        del row[at : at + 2]
    return count, steps


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("5", [5]),
        ("5,17/18", [5, "17/18"]),
        ("8-10", [8, 9, 10]),
        ("0, 8 - 9,4-4,17/18", [0, 8, 9, 4, "17/18"]),
        (" 5 , 17 / 18 ", [5, "17/18"]),
        ("7.mlp,8.attn", ["7/8"]),
        ("8.attn,7.mlp", ["7/8"]),
        ("7.attn,7.mlp", [7]),
        ("17/18,17.attn,18.mlp", ["17/18", "17.attn,18.mlp"]),
        ("17.attn,18.mlp,17.mlp,18.attn", [17, 18]),
        ("7.mlp,8.attn,2", ["7/8", 2]),
    ],
)
def test_steps_are_read_as_people_write_them(text: str, steps: list[Step]) -> None:
    assert read_steps(text) == steps


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("five", "'five' is no block .5., no range .8-10., no seam .17/18. and no sublayer .7.mlp."),
        ("10-8", "the range 10-8 runs backwards"),
        ("0-99999999999", "no model has as many blocks as the range 0-99999999999 names"),
        ("5/7", "5/7 is no seam, which lies between neighbours such as 5/6"),
        ("7.mlp", "without 7.mlp attention and MLP would not take turns"),
        ("7.mlp,9.attn", "without 7.mlp and 9.attn attention and MLP would not take turns"),
        ("", "'' is no block"),
        ("-1", "'-1' is no block"),
    ],
)
def test_what_is_no_step_is_named(text: str, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        read_steps(text)


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([4], "block 4 does not exist: the model has blocks 0 to 3"),
        (["3/4"], "block 4 .3/4. does not exist"),
        ([-1], "block -1 does not exist"),
        ([1, 1], "block 1 is named twice"),
        (["1/2", 2], "1/2 and 2 both remove 2.attn"),
        (["1.attn,2.mlp"], "without 1.attn and 2.mlp attention and MLP would not take turns"),
        (["1.attn,2.attn"], "would not take turns"),
        (["1.attn,1.attn"], "would not take turns"),
    ],
)
def test_steps_that_cannot_be_taken_are_named(steps: list[Step], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        checked_steps(steps, 4)


def test_each_step_has_one_spelling() -> None:
    assert checked_steps(["1.mlp,2.attn", "3.attn,3.mlp", "1.attn,2.mlp"], 4) == ("1/2", 3, "1.attn,2.mlp")


@modest
@given(removals())
def test_what_is_left_takes_turns(removal: tuple[int, list[Step]]) -> None:
    count, steps = removal
    assert list(checked_steps(steps, count)) == steps
    gone = removed_by(steps)
    kept = [sublayer for depth in range(2 * count) if (sublayer := Sublayer.at(depth)) not in gone]
    assert [sublayer.part for sublayer in kept] == ["attn", "mlp"] * (count - len(steps))
    assert kept_halves(steps, count) == [(a.block, m.block) for a, m in zip(kept[::2], kept[1::2], strict=True)]
    assert all(attention <= mlp for attention, mlp in kept_halves(steps, count))
    assert sorted(untouched(steps, count) + list(touched_by(steps))) == list(range(count))


@modest
@given(removals())
def test_what_is_written_is_read_again(removal: tuple[int, list[Step]]) -> None:
    count, steps = removal
    if steps:
        read = read_steps(",".join(map(str, steps)))
        assert removed_by(read) == removed_by(steps)
        assert removed_by(checked_steps(read, count)) == removed_by(steps)
    for step in steps:
        assert step_of(sublayers_of(step)) == step


@modest
@given(removals())
def test_runs_are_even_and_apart(removal: tuple[int, list[Step]]) -> None:
    _, steps = removal
    runs = list(runs_of(removed_by(steps)))
    assert {sublayer for run in runs for sublayer in run} == removed_by(steps)
    assert all(len(run) % 2 == 0 for run in runs)
    assert all(first[-1].depth + 1 < second[0].depth for first, second in pairwise(runs))
    assert simplest(steps) == [step for run in runs for step in steps_of(run)]
    assert removed_by(simplest(steps)) == removed_by(steps)
    assert simplest(steps) == list(checked_steps(simplest(steps), 99))


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([5], "block 5"),
        ([5, 6], "blocks 5, 6"),
        (["17/18"], "seam 17/18"),
        (["1/2", "2/3"], "seams 1/2, 2/3"),
        ([5, "17/18"], "5, 17/18"),
    ],
)
def test_steps_are_named_in_prose(steps: list[Step], said: str) -> None:
    assert named(steps) == said


def test_integers_of_other_libraries_are_blocks() -> None:
    steps = checked_steps([*np.argsort([0.3, 0.1, 0.2, 0.4])[:2], torch.tensor(0)], 4)
    assert steps == (1, 2, 0)
    assert all(type(step) is int for step in steps)


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([5.0], "5.0 is no step: write a block as a number"),
        ([None], "None is no step"),
        ([True], "True is no step"),
        (["5,7/8"], "'5,7/8' is more than one step: write each as an entry of its own"),
    ],
)
def test_what_is_no_step_is_refused(steps: Any, said: str) -> None:
    with pytest.raises(OptionError, match=re.escape(said)):
        checked_steps(steps, 12)


def test_a_text_of_steps_is_read() -> None:
    assert checked_steps("5,7/8", 12) == (5, "7/8")
    with pytest.raises(OptionError, match=r"without 3\.mlp attention and MLP would not take turns"):
        read_steps("2,3.mlp,6")


@settings(derandomize=True, deadline=None, database=None, max_examples=60)
@given(num_blocks=st.integers(1, 6), choices=st.lists(st.integers(0, 99), max_size=6))
def test_candidates_are_the_neighbours_in_what_is_left(num_blocks: int, choices: list[int]) -> None:
    removed: list[Step] = []
    for choice in choices:
        row = left(removed, num_blocks)
        blocks, seams = candidates(removed, num_blocks, "all")
        parts = [[part for step in series for part in sublayers_of(step)] for series in (blocks, seams)]
        assert parts == [row, row[1:-1]]
        attention, mlp = sublayer_units(removed, num_blocks)
        assert {part for step in [*attention, *mlp] for part in sublayers_of(step)} == set(row)
        for step in [*blocks, *seams]:
            assert checked_steps([*removed, step], num_blocks)[-1] == step
        whole, none = candidates(removed, num_blocks)
        assert whole == [step for step in blocks if isinstance(step, int)]
        assert none == []
        if not row:
            break
        every = [*blocks, *seams]
        removed.append(every[choice % len(every)])
        assert len(removed_by(removed)) == 2 * len(removed)


def test_what_is_left_is_written_as_it_is_removed() -> None:
    assert candidates(["1/2"], 4, "all") == ([0, "1.attn,2.mlp", 3], ["0/1", "2/3"])
    assert candidates([2], 4, "all") == ([0, 1, 3], ["0/1", "1.mlp,3.attn"])
    assert sublayer_units([2], 3) == (["0.attn", "1.attn"], ["0.mlp", "1.mlp"])

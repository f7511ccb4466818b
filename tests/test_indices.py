"""How blocks are written, read, checked and named."""

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
from layerimp.indices import checked_blocks, kept_blocks, named, read_blocks, runs_of, weakest_first


@pytest.mark.parametrize(
    ("text", "blocks"),
    [("5", [5]), ("8-10", [8, 9, 10]), ("0, 8 - 9,4-4", [0, 8, 9, 4]), (" 5 , 17 ", [5, 17]), ("2,2", [2, 2])],
)
def test_blocks_are_read_as_people_write_them(text: str, blocks: list[int]) -> None:
    assert read_blocks(text) == blocks


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("five", "'five' is no block"),
        ("10-8", "the range 10-8 runs backwards"),
        ("0-99999999999", "no model has as many blocks as the range 0-99999999999 names"),
        ("", "'' is no block"),
        ("-1", "'-1' is no block"),
        ("5,17/18", "'17/18' is no block; a block is a whole number, and only whole blocks can be removed"),
        ("7.attn", "'7.attn' is no block; a block is a whole number, and only whole blocks can be removed"),
    ],
)
def test_what_is_no_block_is_named(text: str, problem: str) -> None:
    with pytest.raises(OptionError, match=re.escape(f"--protect takes blocks such as 5,8-10, got {text!r}: {problem}")):
        read_blocks(text, what="--protect")


@pytest.mark.parametrize(
    ("blocks", "problem"),
    [
        ([4], "block 4 does not exist: the model has blocks 0 to 3"),
        ([-1], "block -1 does not exist"),
        ([1, 1], "block 1 is named twice"),
        ([1.0], "1.0 is no block"),
        ([None], "None is no block"),
        ([True], "True is no block"),
        (["1/2"], "'1/2' is no block; a block is a whole number, and only whole blocks can be removed"),
        ("1,2", "blocks are given as a list, such as [5, 8], got '1,2'"),
        (3, "blocks are given as a list, such as [5, 8], got 3"),
    ],
)
def test_blocks_that_cannot_be_removed_are_named(blocks: Any, problem: str) -> None:
    with pytest.raises(OptionError, match=re.escape(problem)):
        checked_blocks(blocks, 4)


def test_integers_of_other_libraries_are_blocks() -> None:
    blocks = checked_blocks([*np.argsort([0.3, 0.1, 0.2, 0.4])[:2], torch.tensor(0)], 4)
    assert blocks == (1, 2, 0)
    assert all(type(block) is int for block in blocks)


@settings(derandomize=True, max_examples=100, deadline=None, database=None)
@given(num_blocks=st.integers(1, 12), removed=st.sets(st.integers(0, 11)))
def test_runs_hold_neighbours_and_the_rest_is_kept(num_blocks: int, removed: set[int]) -> None:
    removed = {block for block in removed if block < num_blocks}
    runs = list(runs_of(removed))
    assert [block for run in runs for block in run] == sorted(removed)
    assert all(run == list(range(run[0], run[-1] + 1)) for run in runs)
    assert all(first[-1] + 1 < second[0] for first, second in pairwise(runs))
    assert sorted([*kept_blocks(removed, num_blocks), *removed]) == list(range(num_blocks))


def test_blocks_are_named_in_prose() -> None:
    assert [named([5]), named([5, 6])] == ["block 5", "blocks 5, 6"]


def test_of_two_equal_scores_the_deeper_block_is_the_weaker() -> None:
    assert weakest_first({0: 1.0, 1: 0.5, 2: 1.0, 3: 0.5}) == [3, 1, 2, 0]

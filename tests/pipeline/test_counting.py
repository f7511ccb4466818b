"""The search for a number of blocks, on curves that are written out."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerimp.pipeline.keeping import confirmed, most_that_hold

modest = settings(derandomize=True, max_examples=200, deadline=None, database=None)


class Curve:
    """Tells for each number whether it holds, and records the requests."""

    def __init__(self, held: set[int]) -> None:
        self.held = held
        self.asked: list[int] = []

    def __call__(self, count: int) -> bool:
        self.asked.append(count)
        return count in self.held


@modest
@given(st.integers(1, 60).flatmap(lambda most: st.tuples(st.just(most), st.integers(0, most))), st.booleans())
def test_where_the_curve_falls_it_is_where_an_exhaustive_search_says(case: tuple[int, int], nested: bool) -> None:
    most, edge = case
    curve = Curve(set(range(1, edge + 1)))
    assert most_that_hold(curve, 1, most, nested=nested) == edge
    if nested:
        assert len(curve.asked) == len(set(curve.asked)) <= most.bit_length()
    else:
        assert curve.asked == list(range(1, min(edge + 1, most) + 1))


@modest
@given(st.sets(st.integers(1, 40)), st.integers(1, 40), st.booleans())
def test_on_any_curve_all_that_was_tried_up_to_the_answer_holds(held: set[int], least: int, nested: bool) -> None:
    curve = Curve(held)
    most = most_that_hold(curve, least, 40, nested=nested)
    tried = set(curve.asked)
    assert most == 0 or most in tried & held
    assert all(count in held for count in tried if count <= most)
    assert most == 40 or max(most + 1, least) in tried - held  # one more was tried, and fails


def test_a_curve_that_rises_again_is_cut_where_a_try_failed() -> None:
    dip = Curve({1, 2, 3, 5, 6, 7, 8})
    assert most_that_hold(dip, 1, 11, nested=True) == 8  # 6 was tried first, and 4 never
    assert dip.asked == [6, 9, 7, 8]
    assert most_that_hold(dip, 1, 11, nested=False) == 3


@pytest.mark.parametrize(
    ("most", "holding", "confirming", "answer"),
    [
        (5, {1, 2, 3, 4, 5}, {1, 2, 3, 4, 5}, 5),
        (5, {1, 2, 3, 4, 5}, {1, 2, 3}, 3),
        (5, {1, 2, 3, 5}, {1, 2, 4}, 2),  # the search's own documents speak against 4, which it had not tried
        (5, {1, 2, 3, 4, 5}, set(), 0),
        (0, set(), {1}, 0),
    ],
)
def test_a_number_is_confirmed_or_stepped_down_from(
    most: int, holding: set[int], confirming: set[int], answer: int
) -> None:
    assert confirmed(most, holding.__contains__, confirming.__contains__, 1) == answer


def test_forced_steps_are_never_fewer() -> None:
    assert most_that_hold(Curve({1, 2}), 3, 9, nested=True) == 0
    assert confirmed(4, {3, 4}.__contains__, {1, 2}.__contains__, 3) == 0

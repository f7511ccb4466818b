"""Sums over rows solve least squares."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from layerimp_closedform import gram
from layerimp_closedform.gram import ROWS, Gram
from support.healing_cases import lstsq, rows


@settings(derandomize=True, max_examples=25, deadline=None)
@given(
    st.integers(1, 6),
    st.integers(1, 4),
    st.lists(st.integers(1, 20), min_size=1, max_size=4),
    st.booleans(),
    st.sampled_from([4, ROWS]),
)
def test_gram_is_least_squares(features: int, outputs: int, parts: list[int], weighted: bool, at_a_time: int) -> None:
    """Against torch.linalg.lstsq on all rows at once."""
    ridge = 0.1
    x, y = rows(sum(parts), features, 0).double(), rows(sum(parts), outputs, 1).double()
    weight = rows(sum(parts), 1, 2)[:, 0].square() + 0.1 if weighted else torch.ones(sum(parts))
    whole = Gram()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gram, "ROWS", at_a_time)
        for chunk, part, shares in zip(x.split(parts), y.split(parts), weight.split(parts), strict=True):
            whole.add(chunk, part, shares if weighted else None)
    expected = lstsq(x, y, weight.double(), ridge)
    assert torch.allclose(whole.solve(ridge), expected, atol=1e-8)


def test_float32_is_precise_enough() -> None:
    """For columns whose squares differ by a factor of a million, and the smallest default ridge."""
    x, y = rows(3000, 8, 0), rows(3000, 5, 1)
    x[:, 0] *= 1000
    single, double = Gram(), Gram()
    single.add(x, y)
    double.add(x.double(), y)
    assert torch.allclose(single.solve(3e-4), double.solve(3e-4), rtol=1e-3, atol=1e-6)

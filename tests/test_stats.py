"""The accumulators: exact to float64, whatever the batches."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layerimp import stats
from layerimp.stats import Mean, Moments, Sum, Workspace, chunks, products, working_dtype

modest = settings(derandomize=True, max_examples=60, deadline=None, database=None)


@st.composite
def batched(draw: Any, offsets: tuple[float, ...], spread: float, dtype: type = np.float64) -> list[Any]:
    """Numbers around an offset, cut anywhere into batches, some of which may be empty."""
    offset = draw(st.sampled_from(offsets))
    values = draw(st.lists(st.floats(-spread, spread, width=32), min_size=1, max_size=40))
    cuts = sorted(draw(st.lists(st.integers(0, len(values)), max_size=6)))
    numbers = np.asarray(values, dtype) + dtype(offset)
    return [numbers[a:b] for a, b in pairwise([0, *cuts, len(values)])]


def exact(numbers: np.ndarray) -> tuple[Fraction, Fraction]:
    """The mean and the population variance in rational arithmetic."""
    ratios = [Fraction(float(number)) for number in numbers]
    mean = sum(ratios) / len(ratios)
    return mean, sum((ratio - mean) ** 2 for ratio in ratios) / len(ratios)


def feed_moments(moments: Moments, block: int, numbers: np.ndarray) -> None:
    tensor = torch.from_numpy(numbers.astype(np.float64))
    mean = tensor.mean()
    moments.add_moments(block, len(numbers), mean, (tensor - mean).square().sum())


def moments_of(batches: list[np.ndarray]) -> Moments:
    moments = Moments(2)
    for batch in batches:
        feed_moments(moments, 1, batch)
    return moments


@modest
@given(batches=batched((0.0, 1.0, -50.0), 1000.0))
def test_any_split_gives_the_moments_of_the_whole(batches: list[np.ndarray]) -> None:
    _, variance = exact(np.concatenate(batches))
    moments = moments_of(batches)
    assert float(moments.variance()[1]) == pytest.approx(float(variance), rel=1e-10, abs=1e-15)


@modest
@given(batches=batched((1e4, -1e6), 1.0, np.float32))
def test_float32_inputs_with_a_large_mean(batches: list[np.ndarray]) -> None:
    mean, variance = exact(np.concatenate(batches))
    moments = moments_of(batches)
    assert float(moments.variance()[1]) == pytest.approx(float(variance), rel=1e-6, abs=1e-12)
    whole = Mean(1)
    for batch in batches:
        whole.add(0, torch.from_numpy(batch))
    assert float(whole.value()[0]) == pytest.approx(float(mean), rel=1e-14)


@pytest.mark.parametrize("size", [1, 7, 250, 1000])
def test_a_small_variance_does_not_cancel(size: int) -> None:
    numbers = 1e8 + np.random.default_rng(0).normal(0, 1e-2, 1000)
    _, variance = exact(numbers)
    assert float(variance) == pytest.approx(1e-4, rel=0.1)
    naive = (numbers**2).mean() - numbers.mean() ** 2
    assert abs(naive - float(variance)) > 0.1 * float(variance)
    moments = moments_of([numbers[start : start + size] for start in range(0, 1000, size)])
    assert float(moments.variance()[1]) == pytest.approx(float(variance), rel=1e-5)


def test_no_values_are_no_values() -> None:
    moments, mean = Moments(2), Mean(2)
    nan = torch.tensor(float("nan"), dtype=torch.float64)
    moments.add_moments(0, 0, nan, nan)
    feed_moments(moments, 0, np.array([1.0, 3.0]))
    moments.add_moments(0, 0, nan, nan)
    mean.add(0, torch.empty(0))
    mean.add(0, torch.tensor([1.0, 3.0]))
    assert mean.value()[0] == 2.0
    assert moments.variance()[0] == 1.0
    assert torch.isnan(mean.value()[1])
    assert torch.isnan(moments.variance()[1])


@modest
@given(batches=batched((0.0, 3.0), 100.0))
def test_any_split_gives_the_mean_of_the_whole(batches: list[np.ndarray]) -> None:
    whole = Mean(3)
    for batch in batches:
        whole.add(2, torch.from_numpy(batch))
    mean, _ = exact(np.concatenate(batches))
    assert float(whole.value()[2]) == pytest.approx(float(mean), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.int64, torch.bool]
)
def test_means_of_every_dtype_and_shape_are_float64(dtype: torch.dtype) -> None:
    mean = Mean(1)
    mean.add(0, torch.tensor([[[1, 0], [1, 1]]]).to(dtype))
    assert mean.value().dtype == torch.float64
    assert mean.value().tolist() == [0.75]


def test_a_long_float32_sum_keeps_its_last_digits() -> None:
    mean = Mean(1)
    for _ in range(100):
        mean.add(0, torch.full((1000,), 16777217.0, dtype=torch.float64))
        mean.add(0, torch.full((1000,), 16777216.0, dtype=torch.float32))
    assert mean.value().tolist() == [16777216.5]


@pytest.mark.parametrize(("rows", "width"), [(7, 3), (6, 5), (4, 10), (3, 11), (2, 25), (1, 1), (0, 4), (5, 0)])
def test_chunks_are_whole_rows(monkeypatch: pytest.MonkeyPatch, rows: int, width: int) -> None:
    monkeypatch.setattr(stats, "CHUNK_ELEMENTS", 10)
    whole = torch.arange(rows * width).reshape(rows, width)
    pieces = list(chunks(whole))
    assert torch.equal(torch.cat(pieces), whole)
    assert all(piece.numel() <= max(10, width) for piece in pieces)
    assert all(piece.numel() + width > 10 for piece in pieces[:-1])


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_arithmetic_is_never_short(dtype: torch.dtype, expected: torch.dtype) -> None:
    assert working_dtype(dtype) == expected


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_products_are_those_of_every_element(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "CHUNK_ELEMENTS", 10)
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(7, 3, generator=generator).to(dtype) for _ in range(2))
    pairs = [a * b for a, b in zip(x.double().flatten().tolist(), y.double().flatten().tolist(), strict=True)]
    total, magnitude = products(x, y)
    assert total.dtype == magnitude.dtype == torch.float64
    assert float(total) == pytest.approx(sum(pairs), rel=1e-6)
    assert float(magnitude) == pytest.approx(sum(map(abs, pairs)), rel=1e-6)


def test_sums_add_up() -> None:
    sums = Sum(2)
    for value in (1.0, 2.5, -4.0):
        sums.add(1, torch.tensor(value, dtype=torch.float64))
    assert sums.value().tolist() == [0.0, -0.5]


def test_a_workspace_asks_for_memory_once() -> None:
    space = Workspace()
    first = space.like(torch.zeros(6, 4))
    smaller = space.like(torch.zeros(5, 3))
    assert first.shape == (6, 4)
    assert smaller.shape == (5, 3)
    assert smaller.data_ptr() == first.data_ptr()
    assert space.like(torch.zeros(6, 4, dtype=torch.float64)).dtype == torch.float64
    assert space.like(torch.zeros(7, 4, dtype=torch.float64)).shape == (7, 4)
    space.release()
    assert space.like(torch.zeros(2)).shape == (2,)

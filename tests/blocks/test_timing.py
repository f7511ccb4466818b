"""The error of a median, against medians of many samples; times are tested where they are measured."""

from __future__ import annotations

import pytest
import torch

from layerimp.blocks.timing import error_of_median


def test_error_of_the_median() -> None:
    torch.manual_seed(0)
    samples = torch.randn(20_000, 25, dtype=torch.float64)
    spread = samples.median(dim=1).values.std()
    assert error_of_median(samples[:1].flatten().tolist()) == pytest.approx(float(spread), rel=0.3)

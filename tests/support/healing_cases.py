"""Cases for healers: tiny models without some of their blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from layerimp.healer import Case
from layerimp.healing.gaps import find_gaps
from layerimp.models.discovery import find_blocks
from layerimp.surgery.removal import prepare
from layerimp.testing import batch, padded_batch

GONE = (1, 2)
"""Two neighbours: one gap."""


def case_of(model: Any, gone: Sequence[int], batches: list[Any] | None = None) -> Case:
    """A healer's input for the model without these blocks."""
    intact = find_blocks(model)
    pruned = find_blocks(prepare(intact, gone).beside())
    text = batches or [batch(4, 16, seed=1), padded_batch((12, 5, 9))]
    return Case(intact, pruned, find_gaps(pruned, gone), text, text[:1], lambda: 0.0, lambda: 0.0)


def rows(count: int, width: int, seed: int) -> torch.Tensor:
    """Normally distributed numbers [count, width]."""
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def lstsq(x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, ridge: float) -> torch.Tensor:
    """Weighted least squares with a ridge in units of the mean square, by rows that are added."""
    root = weight.sqrt()[:, None]
    size = (root * x).square().sum() / x.shape[1]
    tall = torch.cat([root * x, (ridge * size).sqrt() * torch.eye(x.shape[1], dtype=x.dtype)])
    return torch.linalg.lstsq(
        tall, torch.cat([root * y, torch.zeros(x.shape[1], y.shape[1], dtype=y.dtype)])
    ).solution.T

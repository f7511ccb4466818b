"""Seams, by scorers that read the residual stream, against computations by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from layerimp_avss import AVSS
from layerimp_baselines import Angular, BlockInfluence, RelativeMagnitude
from support.seam_scores import (
    architectures,
    close,
    places,
    rows,
    scored,
    text,
)
from support.tiny import tiny
from torch.nn.functional import cosine_similarity

from layerimp.testing import BLOCKS


@architectures
def test_geometry_of_the_stream(architecture: str) -> None:
    model = tiny(architecture, dtype=torch.float64)
    at = rows(model, architecture, text())
    influence = scored(model, BlockInfluence)
    close(influence.scores, [(1 - cosine_similarity(at[a], at[b])).mean() for a, b in places(influence)])
    relative = scored(model, RelativeMagnitude)
    close(relative.scores, [((at[b] - at[a]).norm(dim=-1) / at[b].norm(dim=-1)).mean() for a, b in places(relative)])


@architectures
def test_windows_at_both_parities(architecture: str) -> None:
    """A window of n is any 2n neighbouring sublayers; a step has the lowest score of its windows of the same parity."""
    model = tiny(architecture, dtype=torch.float64)
    at = rows(model, architecture, text())
    for window in (1, 2, 3):
        importance = scored(model, Angular, window=window, tokens="all")
        turned = [
            (cosine_similarity(at[a], at[a + 2 * window]).arccos() / math.pi).mean()
            for a in range(2 * BLOCKS - 2 * window + 1)
        ]
        close(importance.spans[window], turned)
        least = [
            min(turned[start] for start in range(a % 2, len(turned), 2) if start <= a and a + 2 <= start + 2 * window)
            for a, _ in places(importance)
        ]
        close(importance.scores, least)


@architectures
@pytest.mark.parametrize("site", ["block_out", "block_delta"])
def test_avss_has_shares_of_its_own_in_each_series(architecture: str, site: Any) -> None:
    model = tiny(architecture, dtype=torch.float64)
    at = rows(model, architecture, text())
    importance = scored(model, AVSS, site=site)
    acts = [at[b] if site == "block_out" else at[b] - at[a] for a, b in places(importance)]
    variance = torch.stack([act.var(correction=0) for act in acts])
    inactive = [(act.abs() < 0.1 * act.square().mean(dim=-1, keepdim=True).sqrt()).double().mean() for act in acts]
    avss = variance / torch.stack(inactive)
    for parity in (0, 1):  # blocks and seams alternate
        close(importance.columns["variance"][parity::2], list(variance[parity::2]))
        close(importance.scores[parity::2], list(avss[parity::2] / avss[parity::2].sum()))

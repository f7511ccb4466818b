"""Relative magnitude: how much of a block's output it made itself (Samragh et al. 2023, arXiv:2309.04663)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import torch

from layerimp import Importance, Scorer
from layerimp.stats import Mean, chunks, working_dtype
from layerimp.sweep import Forward

if TYPE_CHECKING:
    from layerimp.sweep import Trace


class RelativeMagnitude(Scorer):
    """Mean over tokens of the norm of what the block adds, relative to the norm of its output."""

    name = "relative-magnitude"
    reference = "Samragh et al. 2023, arXiv:2309.04663"
    sweep = Forward()
    observes = frozenset({"block_in", "block_out"})
    identity_scores_least = True

    def __init__(self, num_blocks: int, config: Any = None) -> None:
        super().__init__(num_blocks, config)
        self._mean = Mean(num_blocks)

    def update(self, trace: Trace) -> None:
        """Take in one block's input and output [batch, seq, hidden] in one batch."""
        for before, after in zip(chunks(trace.rows("block_in")), chunks(trace.rows("block_out")), strict=True):
            wide = after.to(working_dtype(after.dtype))
            added, whole = (torch.linalg.vector_norm(v, dim=-1) for v in (wide - before, wide))
            self._mean.add(trace.block, added / whole.clamp_min(torch.finfo(whole.dtype).tiny))

    def merge(self, other: Self) -> None:
        """Absorb another shard's statistics."""
        self._mean.merge(other._mean)

    def compute(self) -> Importance:
        """The mean of each block."""
        return Importance(scores=self._mean.value().tolist())

"""Block influence: how much a block turns the hidden state (Men et al. 2024, ShortGPT, arXiv:2403.03853)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from layerimp import Importance, Scorer
from layerimp.stats import Mean, chunks
from layerimp.sweep import Forward
from layerimp_baselines.geometry import one_minus_cosine

if TYPE_CHECKING:
    from layerimp.sweep import Trace


class BlockInfluence(Scorer):
    """Mean over tokens of 1 - cos(block input, block output)."""

    name = "block-influence"
    reference = "Men et al. 2024 (ShortGPT), arXiv:2403.03853, equation 1"
    sweep = Forward()
    observes = frozenset({"block_in", "block_out"})
    identity_scores_least = True

    def __init__(self, num_blocks: int, config: Any = None) -> None:
        super().__init__(num_blocks, config)
        self._mean = Mean(num_blocks)

    def update(self, trace: Trace) -> None:
        """Take in one block's input and output [batch, seq, hidden] in one batch."""
        for before, after in zip(chunks(trace.rows("block_in")), chunks(trace.rows("block_out")), strict=True):
            self._mean.add(trace.block, one_minus_cosine(before, after))

    def merge(self, other: Self) -> None:
        """Absorb another shard's statistics."""
        self._mean.merge(other._mean)

    def compute(self) -> Importance:
        """The mean of each block."""
        return Importance(scores=self._mean.value().tolist())

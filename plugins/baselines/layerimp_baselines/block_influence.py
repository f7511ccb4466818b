"""Block influence: how much a block rotates the hidden state (Men et al. 2024, ShortGPT, arXiv:2403.03853)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerimp_baselines.geometry import one_minus_cosine
from layerimp_baselines.token_mean import TokenMean

if TYPE_CHECKING:
    from torch import Tensor


class BlockInfluence(TokenMean):
    """Mean over tokens of 1 - cos(block input, block output)."""

    name = "block-influence"
    reference = "Men et al. 2024 (ShortGPT), arXiv:2403.03853, equation 1"

    def per_token(self, before: Tensor, after: Tensor) -> Tensor:
        """Return 1 - cos of each token's input and output [token]."""
        return one_minus_cosine(before, after, self.workspace)

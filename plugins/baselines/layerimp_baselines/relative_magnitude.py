"""Relative magnitude: the share of a block's output that the block adds (Samragh et al. 2023, arXiv:2309.04663)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from layerimp.stats import working_dtype
from layerimp_baselines.token_mean import TokenMean

if TYPE_CHECKING:
    from torch import Tensor


class RelativeMagnitude(TokenMean):
    """Mean over tokens of the norm of the block's contribution, relative to the norm of the block's output."""

    name = "relative-magnitude"
    reference = "Samragh et al. 2023, arXiv:2309.04663"

    def per_token(self, before: Tensor, after: Tensor) -> Tensor:
        """Return the norm of the difference over the norm of the output [token]."""
        dtype = working_dtype(after.dtype)
        before, after = before.to(dtype), after.to(dtype)
        difference = torch.sub(after, before, out=self.workspace.like(after))
        added, whole = (torch.linalg.vector_norm(v, dim=-1) for v in (difference, after))
        share: Tensor = added / whole.clamp_min(torch.finfo(dtype).tiny)
        return share

"""Notices a NaN or an infinity that a block puts out, without waiting for the device at every block."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from layerimp.errors import ModelError, NonFiniteError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def spread(hidden: Tensor, mask: Tensor | None) -> Tensor:
    """How far the values of `hidden` [batch, seq, hidden] lie apart [], float64: finite only if every value is.

    Args:
        hidden: What a block puts out.
        mask: Which tokens are real [batch, seq]; None where all are.
    """
    low, high = (hidden if mask is None else hidden[mask.to(hidden.device)]).aminmax()
    return high.double() - low.double()


def require_rows(hidden: Tensor, mask: Tensor) -> None:
    """Refuse hidden states that are not [batch, seq, hidden], of a batch with that `mask` [batch, seq].

    Raises:
        ModelError: they hold several streams, or other tokens.
    """
    if hidden.shape[:-1].numel() != mask.numel() or (hidden.ndim == 3 and hidden.shape[:2] != mask.shape):
        raise ModelError(f"a block puts out hidden states {list(hidden.shape)}, and not [batch, seq, hidden]")


def require_finite(spreads: Sequence[Tensor], blocks: Sequence[int], batch: int | None) -> None:
    """Look at the spreads of all blocks, when a batch is through.

    Args:
        spreads: One per block.
        blocks: The blocks' indices in the model.
        batch: The batch's position in the calibration set; None for a few tokens that are tried first.

    Raises:
        ModelError: the blocks ran, but not as modules.
        NonFiniteError: one is not finite; names the first such block, and the batch.
    """
    if not spreads:
        raise ModelError("no hook of a block is called: the model runs its blocks otherwise than as modules")
    bad = (~torch.stack([value.to(spreads[0].device) for value in spreads]).isfinite()).nonzero()
    if len(bad):
        where = "in the probe before batch 0" if batch is None else f"in batch {batch}"
        raise NonFiniteError(f"block {blocks[int(bad[0])]} puts out a NaN or an infinity {where}")

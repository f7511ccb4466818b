"""Notices a NaN or an infinity in a block's output, without waiting for the device at every block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from layerimp.blocks.forward import hidden_states
from layerimp.errors import ModelError, NonFiniteError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class Watch:
    """Watches the outputs of blocks, one batch after another.

    Args:
        blocks: The blocks' indices in the model.
    """

    def __init__(self, blocks: Sequence[int]) -> None:
        self.blocks = blocks

    def watch(self, mask: Tensor) -> None:
        """Begin a batch, or some rows of one; its `mask` [batch, seq] is True at real tokens."""
        self.mask, self.padded = mask, not bool(mask.all())
        self._spreads: list[Tensor] = []

    def spread(self, hidden: Tensor) -> Tensor:
        """Return the spread of the values of `hidden` [batch, seq, hidden], a float64 []: finite only if all are."""
        low, high = (hidden[self.mask.to(hidden.device)] if self.padded else hidden).aminmax()
        return high.double() - low.double()

    def put_out(self, output: Any) -> Tensor:
        """Take the next block's output, and return its hidden states [batch, seq, hidden].

        Raises:
            ModelError: the hidden states do not have one state per token of the batch.
        """
        hidden, shape = hidden_states(output), self.mask.shape
        if hidden.shape[:-1].numel() != shape.numel() or (hidden.ndim == 3 and hidden.shape[:2] != shape):
            raise ModelError(f"a block puts out hidden states {list(hidden.shape)}, and not [batch, seq, hidden]")
        self._spreads.append(self.spread(hidden.detach()))
        return hidden

    def check_outputs(self, when: str) -> None:
        """Check the spreads of all blocks at the end of a batch.

        Args:
            when: The time of the check, for the error, such as `in batch 0`.

        Raises:
            ModelError: the model does not call its blocks as modules, so that no hook is called.
            NonFiniteError: a block's output is not finite; the error names the first such block.
        """
        if not self._spreads:
            raise ModelError("no hook of a block is called: the model runs its blocks otherwise than as modules")
        bad = (~torch.stack([value.to(self._spreads[0].device) for value in self._spreads]).isfinite()).nonzero()
        if len(bad):
            raise NonFiniteError(f"block {self.blocks[int(bad[0])]} puts out a NaN or an infinity {when}")

"""Notices a NaN or an infinity in a block's output, without waiting for the device at every block."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from layerimp.blocks.forward import hidden_states
from layerimp.errors import ModelError, NonFiniteError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


@dataclass
class Watched:
    """A batch, or some rows of one, on its way through the blocks.

    Attributes:
        mask: Which of its tokens are real [batch, seq].
        padded: Whether any is not.
        spreads: How far the values of what each block put out lie apart.
    """

    mask: Tensor
    padded: bool
    spreads: list[Tensor] = field(default_factory=list)


class Watch:
    """Watches what blocks put out, batch by batch.

    Args:
        blocks: The blocks' indices in the model.

    Attributes:
        batch: The batch that is on its way through the blocks.
    """

    batch: Watched

    def __init__(self, blocks: Sequence[int]) -> None:
        self.blocks = blocks

    def watch(self, mask: Tensor) -> None:
        """A batch begins, or some rows of one; its `mask` [batch, seq] tells which tokens are real."""
        self.batch = Watched(mask, not bool(mask.all()))

    @property
    def mask(self) -> Tensor:
        """Which tokens of the batch are real [batch, seq]."""
        return self.batch.mask

    @property
    def padded(self) -> bool:
        """Whether any token of the batch is not real."""
        return self.batch.padded

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
        self.batch.spreads.append(self.spread(hidden.detach()))
        return hidden

    def check_outputs(self, when: str) -> None:
        """Check the spreads of all blocks at the end of a batch.

        Args:
            when: The time of the check, for the error, such as `in batch 0`.

        Raises:
            ModelError: the model does not call its blocks as modules, so that no hook is called.
            NonFiniteError: a block's output is not finite; the error names the first such block.
        """
        if not (spreads := self.batch.spreads):
            raise ModelError("no hook of a block is called: the model runs its blocks otherwise than as modules")
        bad = (~torch.stack([value.to(spreads[0].device) for value in spreads]).isfinite()).nonzero()
        if len(bad):
            raise NonFiniteError(f"block {self.blocks[int(bad[0])]} puts out a NaN or an infinity {when}")

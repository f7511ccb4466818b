"""Watches what blocks read and put out, and notices a NaN or an infinity without waiting for the device each time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from layerimp.blocks.forward import block_input, hidden_states
from layerimp.errors import ModelError, NonFiniteError

if TYPE_CHECKING:
    from torch import Tensor, nn


@contextmanager
def watching(
    blocks: Mapping[int, nn.Module],
    read: Callable[[int, Tensor], None] = lambda _index, _hidden: None,
    put_out: Callable[[int, Any], None] = lambda _index, _output: None,
) -> Iterator[None]:
    """A context in which functions are shown what blocks read and put out.

    Args:
        blocks: The blocks, by index.
        read: Takes the index and the input [batch, seq, hidden] of each block.
        put_out: Takes the index and the output of each block, in the block's own form.
    """

    def enter(index: int, _block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        read(index, block_input(args, kwargs))

    def leave(index: int, _block: nn.Module, _args: Any, output: Any) -> None:
        put_out(index, output)

    with ExitStack() as undo:
        for index, block in blocks.items():
            undo.enter_context(block.register_forward_pre_hook(partial(enter, index), with_kwargs=True))
            undo.enter_context(block.register_forward_hook(partial(leave, index)))
        yield


class Watched:
    """A batch, or some rows of one, on its way through the blocks.

    Args:
        mask: Which of its tokens are real [batch, seq].
        when: The time of its pass, for errors, such as `in batch 0`.

    Attributes:
        mask: Which of its tokens are real [batch, seq].
        padded: Whether any is not.
    """

    def __init__(self, mask: Tensor, when: str) -> None:
        self.mask, self.padded, self._when = mask, not bool(mask.all()), when
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

    def check(self, blocks: Sequence[int]) -> None:
        """Check the spreads of the outputs so far.

        Args:
            blocks: The indices of the blocks that the batch goes through.

        Raises:
            ModelError: the model does not call its blocks as modules, so that no hook is called.
            NonFiniteError: a block's output is not finite; the error names the first such block.
        """
        if not (spreads := self._spreads):
            raise ModelError("no hook of a block is called: the model runs its blocks otherwise than as modules")
        bad = (~torch.stack([value.to(spreads[0].device) for value in spreads]).isfinite()).nonzero()
        if len(bad):
            raise NonFiniteError(f"block {blocks[int(bad[0])]} puts out a NaN or an infinity {self._when}")

"""Which blocks of a model have their weights in memory, where the model as a whole does not fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from layerimp.blocks.forward import computing

if TYPE_CHECKING:
    from torch import Tensor

    from layerimp.blocks.stack import BlockStack


class Residency(Protocol):
    """Brings the weights of a block into memory while they are needed, and lets them go afterwards."""

    def held(self, index: int, *, then: int | None = None) -> AbstractContextManager[None]:
        """Keep the weights of one block in memory inside this context. It can be entered again inside itself.

        Args:
            index: The block.
            then: The block that is needed next, if that is known: its weights may be read ahead meanwhile.

        Raises:
            ModelError: the weights cannot be read, or do not fit the configuration; names one of them.
            NonFiniteError: a weight is a NaN or an infinity; names the tensor.
        """

    def set_aside(self, hidden: Tensor) -> None:
        """Let the hidden states of a batch that waits before a block lie where they take no memory, if that was asked.

        The tensor stays what it is; only its numbers lie elsewhere.

        Args:
            hidden: The hidden states [batch, seq, hidden].

        Raises:
            ModelError: there is no room for them.
        """


@contextmanager
def on_demand(stack: BlockStack) -> Iterator[None]:
    """Let each block of a streamed model have its weights in memory while it runs, and only then.

    A pass of the model reads all blocks; for many batches see `layerimp.sweep.block_by_block`.
    """
    with ExitStack() as undo:
        for index, block in enumerate(stack if stack.streamed else ()):
            undo.enter_context(computing(block, partial(_holding, stack, index, block.forward)))
        yield


def _holding(stack: BlockStack, index: int, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    with stack.held(index, then=index + 1 if index + 1 < len(stack) else None):
        return forward(*args, **kwargs)

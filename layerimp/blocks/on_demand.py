"""Runs an offloaded model as it is: each block gets its weights when it is called, and lets them go."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from layerimp.blocks.forward import computing

if TYPE_CHECKING:
    from layerimp.blocks.stack import BlockStack


@contextmanager
def on_demand(stack: BlockStack) -> Iterator[None]:
    """Let each block of an offloaded model have its weights in memory while it runs, and only then.

    A pass of the model reads all blocks; for many batches see `layerimp.sweep.block_by_block`.
    """
    with ExitStack() as undo:
        for index, block in enumerate(stack if stack.offloaded else ()):
            undo.enter_context(computing(block, partial(_holding, stack, index, block.forward)))
        yield


def _holding(stack: BlockStack, index: int, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    with stack.held(index, then=index + 1 if index + 1 < len(stack) else None):
        return forward(*args, **kwargs)

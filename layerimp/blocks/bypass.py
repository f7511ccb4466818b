"""Bypasses blocks without removing anything."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from layerimp.blocks.forward import block_input, computing, with_hidden

if TYPE_CHECKING:
    from layerimp.blocks.stack import BlockStack


@contextmanager
def bypassed(stack: BlockStack, blocks: Collection[int], *, idle: bool = False) -> Iterator[None]:
    """A context in which the hidden states bypass some blocks. All blocks keep their indices.

    Args:
        stack: The model's blocks.
        blocks: The blocks to bypass.
        idle: Whether bypassed blocks run only once, to show the form of their output. Allowed only if the other blocks
            of the model read nothing of them but the hidden states.
    """
    with ExitStack() as undo:
        for index in sorted(blocks):
            undo.enter_context(computing(stack[index], _passing_by(stack[index].forward, idle)))
        yield


def _passing_by(forward: Callable[..., Any], idle: bool) -> Callable[..., Any]:
    """Return a function that returns the hidden states unchanged, in the same form as `forward`."""
    shown: list[Any] = []

    def passing(*args: Any, **kwargs: Any) -> Any:
        hidden = block_input(args, kwargs)
        if not (shown and idle):
            shown[:] = [with_hidden(forward(*args, **kwargs), hidden.new_empty(0))]
        return with_hidden(shown[0], hidden)

    return passing

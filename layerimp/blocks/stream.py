"""Reads and changes the residual stream between any two sublayers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from layerimp.blocks.forward import block_input, hidden_states, with_input
from layerimp.blocks.halves import halves_of
from layerimp.blocks.middle import Halves, changing_middle, watching_middle

if TYPE_CHECKING:
    from torch import Tensor, nn

    from layerimp.blocks.stack import BlockStack
    from layerimp.steps import Sublayer


class Place:
    """A place in the residual stream: before a sublayer, or at the end of the stack.

    Args:
        stack: The model's blocks.
        before: The sublayer. The attention of a block after the last one stands for the end of the stack.
        halves: The halves of the block, by its index, if they are known.

    Raises:
        ModelError: the place lies inside a block that cannot be divided.
    """

    def __init__(self, stack: BlockStack, before: Sublayer, halves: Mapping[int, Halves] | None = None) -> None:
        self._at_the_end = before.block == len(stack)
        self._block = stack[before.block - self._at_the_end]
        inside = before.part == "mlp"
        self._halves = (halves or halves_of(stack, [before.block]))[before.block] if inside else None

    @contextmanager
    def watching(self, see: Callable[[Tensor], None]) -> Iterator[None]:
        """A context in which `see` is shown the stream [batch, seq, hidden] on each run; its errors end the run."""

        def read(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            see(block_input(args, kwargs))

        with ExitStack() as undo:
            if self._halves is not None:
                undo.enter_context(watching_middle(self._block, self._halves, see))
            elif self._at_the_end:
                undo.enter_context(self._block.register_forward_hook(lambda *call: see(hidden_states(call[-1]))))
            else:
                undo.enter_context(self._block.register_forward_pre_hook(read, with_kwargs=True))
            yield

    @contextmanager
    def changing(self, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """A context in which `change` replaces the stream [batch, seq, hidden]; not for the end of the stack."""

        def enter(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            return with_input(args, kwargs, change(block_input(args, kwargs)))

        with ExitStack() as undo:
            if self._halves is not None:
                undo.enter_context(changing_middle(self._block, self._halves, lambda _start, middle: change(middle)))
            else:
                undo.enter_context(self._block.register_forward_pre_hook(enter, with_kwargs=True))
            yield

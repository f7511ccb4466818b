"""Bypasses blocks, or halves of blocks, without removing anything, and runs blocks from their middle on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from layerimp.blocks.forward import block_input, computing, hidden_states, with_hidden, with_input
from layerimp.blocks.halves import halves_of
from layerimp.blocks.middle import Halves, changing_middle, watching_middle
from layerimp.steps import Step, Sublayer, removed_by, touched_by

if TYPE_CHECKING:
    from torch import Tensor, nn

    from layerimp.blocks.stack import BlockStack


@contextmanager
def bypassed(stack: BlockStack, steps: Sequence[Step], *, idle: bool = False) -> Iterator[None]:
    """A context in which the hidden states bypass the sublayers of some steps. All blocks keep their indices.

    Without its MLP, a block returns its middle. Without its attention, it returns the output of its MLP for the block's
    input. Both halves are still computed.

    Args:
        stack: The model's blocks.
        steps: The steps to bypass, such as `[5, "17/18"]`.
        idle: Whether bypassed whole blocks run only once, to show the form of their output. Allowed only if the other
            blocks of the model read nothing of them but the hidden states.

    Raises:
        ModelError: one half of a block has to be bypassed, but the block cannot be divided.
        NonFiniteError: a block puts out a NaN or an infinity in the trial that looks for its halves.
    """
    removed = removed_by(steps)
    whole = {block for block, part in removed if part == "attn" and Sublayer(block, "mlp") in removed}
    halved = halves_of(stack, touched_by(steps) - whole)
    with ExitStack() as undo:
        for index in sorted(whole):
            undo.enter_context(computing(stack[index], _passing_by(stack[index].forward, idle)))
        for index, halves in halved.items():
            without = _without_attention if Sublayer(index, "attn") in removed else _without_mlp
            undo.enter_context(without(stack[index], halves))
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


@contextmanager
def _without_mlp(block: nn.Module, halves: Halves) -> Iterator[None]:
    """A context in which a block returns its middle."""
    seen: list[Tensor] = []
    with ExitStack() as undo:
        undo.enter_context(watching_middle(block, halves, seen.append))
        forward = block.forward

        def passing(*args: Any, **kwargs: Any) -> Any:
            output = forward(*args, **kwargs)
            return with_hidden(output, seen.pop())

        undo.enter_context(computing(block, passing))
        yield


@contextmanager
def running_from(block: nn.Module, halves: Halves, middle: Tensor) -> Iterator[None]:
    """A context in which a block runs from a middle [batch, seq, hidden], whatever its input.

    The block is called with the middle as its input, and its attention adds nothing to that, so that the MLP half reads
    the middle, bit for bit.
    """

    def enter(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return with_input(args, kwargs, middle.to(block_input(args, kwargs).device))

    with block.register_forward_pre_hook(enter, with_kwargs=True), _without_attention(block, halves):
        yield


@contextmanager
def _without_attention(block: nn.Module, halves: Halves) -> Iterator[None]:
    """A context in which the MLP of a block reads the block's input and adds to it."""
    with ExitStack() as undo:
        if halves.giver is not None:
            undo.enter_context(changing_middle(block, halves, lambda start, _middle: start))
        else:
            for tap in halves.branches:
                undo.enter_context(block.get_submodule(tap.path).register_forward_hook(_nothing))
        yield


def _nothing(_module: nn.Module, _args: Any, output: Any) -> Any:
    """Return a module's output with zeros in place of its hidden states."""
    hidden = hidden_states(output)
    return with_hidden(output, hidden.new_zeros(hidden.shape))

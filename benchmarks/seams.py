"""Computes a model without the attention or the MLP of some blocks, independently of layerimp.

Nothing is known of modules: the arithmetic itself is followed. A block adds something to its input, then to that sum or
to the layer norm of it, and so on. This is a chain of additions, in which each has the previous link, the very same
tensor in memory, as one of its two operands. The first link is the stream after the attention, and the last link the
stream after the MLP. A block without its attention gets its own input in place of the first link; a block without its
MLP returns that link. In a decoder that reads an encoder, the stream after the attentions is the last link but one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

ADDITIONS = frozenset({torch.ops.aten.add.Tensor, torch.ops.aten.add_.Tensor})
GIVERS = {
    "MiniMaxDecoderLayer": "post_attention_layernorm",
    "DebertaLayer": "attention",
    "IBertLayer": "attention.output.output_activation",
}
"""For blocks that add to norms other than torch's layer norm: the module whose output is the stream after attention."""
NORM = torch.ops.aten.native_layer_norm.default


class UnknownChainError(Exception):
    """A block whose chain of additions is not understood."""


@dataclass
class Link:
    """One link of a chain: a sum, and the layer norms of it."""

    total: Tensor
    norms: list[Tensor] = field(default_factory=list)
    normed: bool = False
    """Whether the next addition was to the norm rather than to the sum."""

    @property
    def value(self) -> Tensor:
        return self.norms[0] if self.normed else self.total


class Chain(TorchDispatchMode):
    """Follows the additions of a block from its input on; with `cut`, replaces a link by the input."""

    def __init__(self, start: Tensor, cut: tuple[int, bool] | None = None) -> None:
        super().__init__()
        self.start, self.cut = start, cut
        self.links: list[Link] = []

    def __torch_dispatch__(
        self, func: Any, _types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        before = (
            [operand.data_ptr() for operand in args[:2] if isinstance(operand, Tensor)] if func in ADDITIONS else []
        )
        output = func(*args, **(kwargs or {}))
        if len(before) == 2 and output.numel() == self.start.numel() and self._continues(before):
            self.links.append(Link(output))
            if self.cut == (len(self.links) - 1, False):
                return self.start.clone().view_as(output)
        elif func is NORM and self.links and args[0].data_ptr() == self.links[-1].total.data_ptr():
            self.links[-1].norms.append(output[0])
            if self.cut == (len(self.links) - 1, True):
                return (self.start.clone().view_as(output[0]), *output[1:])
        return output

    def _continues(self, operands: list[int]) -> bool:
        if not self.links:
            return self.start.data_ptr() in operands
        last = self.links[-1]
        if last.total.data_ptr() in operands:
            return True
        last.normed = any(norm.data_ptr() in operands for norm in last.norms)
        return last.normed


def hidden_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Return the hidden states [batch, seq, hidden] in the arguments of a block."""
    hidden: Tensor = args[0] if args else kwargs["hidden_states"]
    return hidden


def with_hidden(output: Any, hidden: Tensor) -> Any:
    """Return a block's output with the hidden states replaced."""
    if isinstance(output, dict):
        return {**output, next(iter(output)): hidden}
    return hidden if isinstance(output, Tensor) else (hidden, *output[1:])


@contextmanager
def without(blocks: Sequence[tuple[nn.Module, str]], learn: Callable[[], object], *, crossing: bool) -> Iterator[None]:
    """A context in which blocks lack one half: `attn` or `mlp`.

    Args:
        blocks: The blocks, each with the half that it lacks.
        learn: Runs the model on plain text, to find the chains of the blocks.
        crossing: Whether the blocks belong to a decoder that reads an encoder.

    Raises:
        UnknownChainError: a chain is not understood.
    """
    cuts = {block: _middle(block, learn, crossing) for block, _ in blocks if type(block).__name__ not in GIVERS}
    with ExitStack() as undo:
        for block, half in blocks:
            if name := GIVERS.get(type(block).__name__):
                _give(block, block.get_submodule(name), half)
                undo.callback(delattr, block.get_submodule(name), "forward")
            else:
                block.forward = _halved(block.forward, half, cuts[block])
            undo.callback(delattr, block, "forward")
        yield


def _middle(block: nn.Module, learn: Callable[[], object], crossing: bool) -> tuple[int, bool]:
    """Find the link that is the stream after a block's attention, and whether it is a norm."""
    chains: list[list[Link]] = []
    forward = block.forward

    def follow(*args: Any, **kwargs: Any) -> Any:
        with Chain(hidden_of(args, kwargs)) as chain:
            output = forward(*args, **kwargs)
        chains.append(chain.links)
        return output

    block.forward = follow
    try:
        learn()
    finally:
        del block.forward
    if not chains or len(chains[0]) < 2:
        raise UnknownChainError(f"{type(block).__name__} has a chain of {len(chains[0]) if chains else 0} links")
    at = len(chains[0]) - 2 if crossing else 0
    return at, chains[0][at].normed


def _give(block: nn.Module, giver: nn.Module, half: str) -> None:
    """A context in which a module in a block returns the block's input, or the block returns the module's output."""
    forward, give = block.forward, giver.forward
    held: list[Tensor] = []

    def compute(*args: Any, **kwargs: Any) -> Any:
        held[:] = [hidden_of(args, kwargs)]
        output = forward(*args, **kwargs)
        return output if half == "attn" else with_hidden(output, held[-1])

    def given(*args: Any, **kwargs: Any) -> Any:
        output = give(*args, **kwargs)
        held.append(output if isinstance(output, Tensor) else output[0])
        return with_hidden(output, held[0]) if half == "attn" else output

    block.forward, giver.forward = compute, given


def _halved(forward: Callable[..., Any], half: str, middle: tuple[int, bool]) -> Callable[..., Any]:
    """Return the output of a block without one half."""

    def compute(*args: Any, **kwargs: Any) -> Any:
        start = hidden_of(args, kwargs)
        with Chain(start, middle if half == "attn" else None) as chain:
            output = forward(*args, **kwargs)
        return output if half == "attn" else with_hidden(output, chain.links[middle[0]].value)

    return compute

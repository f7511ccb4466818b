"""Runs a block from its middle on: only the MLP half."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from layerimp.blocks.bypass import without_attention
from layerimp.blocks.forward import block_input, computing, hidden_states, with_hidden, with_input
from layerimp.blocks.trial import first_float

if TYPE_CHECKING:
    from torch import Tensor, nn

    from layerimp.blocks.middle import Halves


class Restart:
    """Runs a block from its middle on.

    The block is called with the middle as its input, and its attention adds nothing to that, so that the MLP half reads
    the middle, bit for bit. Modules that `learning` has found to belong to the attention half are not computed.

    Args:
        block: The block.
        halves: The block's halves.
    """

    def __init__(self, block: nn.Module, halves: Halves) -> None:
        self._block, self._halves = block, halves
        self._idle: dict[nn.Module, Any] = {}

    @contextmanager
    def learning(self) -> Iterator[None]:
        """A context in which a run of the block shows which parts need not be computed, and what to return instead."""
        outputs: dict[str, Any] = {}
        calls: list[str] = []
        reads: list[torch.Size] = []

        def note(path: str, _module: nn.Module, _args: Any, output: Any) -> None:
            outputs[path] = output
            calls.append(path)

        def enter(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            reads.append(block_input(args, kwargs).shape)

        with ExitStack() as undo:
            undo.enter_context(self._block.register_forward_pre_hook(enter, with_kwargs=True))
            reader = self._block.get_submodule(self._halves.reader)
            undo.enter_context(reader.register_forward_pre_hook(lambda _module, _args: calls.append("")))
            for path in {*dict(self._block.named_children()), *(tap.path for tap in self._halves.branches)}:
                undo.enter_context(self._block.get_submodule(path).register_forward_hook(partial(note, path)))
            yield
        before = calls[: calls.index("")] if "" in calls else []
        for path, child in self._block.named_children():
            if calls.count(path) == 1 and path in before and self._may_be_idle(path, outputs, reads[0]):
                self._idle[child] = outputs[path]

    def _may_be_idle(self, path: str, outputs: dict[str, Any], shape: torch.Size) -> bool:
        """Whether a part of the attention half may return zeros instead, or the middle if that is its output."""
        halves, inside = self._halves, f"{path}."
        if any(part.startswith(inside) for part in (*halves.mlp, halves.giver or "")):
            return False
        hidden = first_float(outputs[path] if isinstance(outputs[path], tuple | list) else (outputs[path],))
        if hidden is None or hidden.shape not in (shape, (shape[:-1].numel(), shape[-1])):
            return False
        branches = [tap.path for tap in halves.branches if tap.path.startswith(inside)]
        if halves.giver is not None or not branches:
            return True
        return len(branches) == 1 and torch.equal(hidden, hidden_states(outputs[branches[0]]).view_as(hidden))

    def forget(self) -> None:
        """Compute the attention half again from now on, although its output is not used."""
        self._idle.clear()

    @contextmanager
    def at(self, middle: Tensor) -> Iterator[None]:
        """A context in which the block runs from a middle [batch, seq, hidden], whatever its input."""

        def enter(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            return with_input(args, kwargs, middle.to(block_input(args, kwargs).device))

        giver = self._halves.giver
        with ExitStack() as undo:
            undo.enter_context(self._block.register_forward_pre_hook(enter, with_kwargs=True))
            undo.enter_context(without_attention(self._block, self._halves))
            for child, output in self._idle.items():
                gives = giver is not None and child is self._block.get_submodule(giver)
                undo.enter_context(computing(child, _instead(output, middle if gives else None, middle)))
            yield


def _instead(output: Any, gives: Tensor | None, middle: Tensor) -> Callable[..., Any]:
    """Return a function that returns hidden states, or zeros in their place, in the form of an earlier `output`."""
    earlier = hidden_states(output)
    shape = middle.shape if earlier.ndim == middle.ndim else (-1, middle.shape[-1])
    hidden = (torch.zeros_like(middle) if gives is None else gives).to(earlier.device, earlier.dtype).reshape(shape)
    other = with_hidden(output, hidden)

    def given(*_args: Any, **_kwargs: Any) -> Any:
        return other

    return given

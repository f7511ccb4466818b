"""The two halves of a block, and functions to read and to replace the hidden states between them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from layerimp.blocks.forward import block_input, computing, hidden_states, with_hidden
from layerimp.blocks.trial import first_float
from layerimp.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from layerimp.blocks.sites import Tap

Change = Callable[["Tensor", "Tensor"], "Tensor"]
"""Takes a block's input and its middle, and returns the new middle, all [batch, seq, hidden]."""


@dataclass(frozen=True)
class Halves:
    """The two halves of a block. Paths are relative to the block.

    Attributes:
        mlp: The MLP half, as its largest submodules and the single parameters and buffers beside them. Everything else
            belongs to the attention half, or contains parts of both.
        reader: The first submodule of the MLP half, which reads the middle.
        giver: The submodule whose output is the middle; None if the block itself adds the attention's output.
        branches: What the attention half adds to the residual stream: usually one addition, two with cross-attention.
    """

    mlp: frozenset[str]
    reader: str
    giver: str | None
    branches: tuple[Tap, ...]


def in_mlp(path: str, mlp: Collection[str]) -> bool:
    """Whether a part of a block, by its path, belongs to the MLP half, given as in `Halves.mlp`."""
    return any(path == prefix or path.startswith(f"{prefix}.") for prefix in mlp)


def parts_both(path: str, mlp: Collection[str]) -> bool:
    """Whether a module, by its path in a block, contains parts of both halves: it contains paths of the MLP half."""
    return any(not path or name.startswith(f"{path}.") for name in mlp)


@dataclass(frozen=True)
class Whole:
    """A block that cannot be divided into halves.

    Attributes:
        reason: Why, such as `its attention and its MLP are parallel branches`.
    """

    reason: str


@contextmanager
def watching_middle(block: nn.Module, halves: Halves, see: Callable[[Tensor], None]) -> Iterator[None]:
    """A context in which a function is shown the middle of a block [batch, seq, hidden] on each run.

    It is the same tensor that the MLP half reads, also in autograd's graph, unless that tensor has another shape.

    Raises:
        ModelError: while the block runs: the block writes into its middle, so that the shown tensor is wrong.
    """
    begun: list[torch.Size] = []
    shown: list[tuple[Tensor, int]] = []
    forward = block.forward

    def begin(*args: Any, **kwargs: Any) -> Any:
        begun[:] = [block_input(args, kwargs).shape]
        output = forward(*args, **kwargs)
        if shown and (kept := shown.pop())[0]._version != kept[1]:
            raise ModelError(f"{type(block).__name__} writes into the hidden states between its attention and its MLP")
        return output

    def read(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        middle = first_float((*args, *kwargs.values()))
        if begun and middle is not None:
            shape = begun.pop()
            if not middle.is_inference():  # writes to inference tensors are not counted
                shown[:] = [(middle, middle._version)]
            see(middle if middle.shape == shape else middle.reshape(shape))

    with ExitStack() as undo:
        undo.enter_context(computing(block, begin))
        undo.enter_context(block.get_submodule(halves.reader).register_forward_pre_hook(read, with_kwargs=True))
        yield


@contextmanager
def changing_middle(block: nn.Module, halves: Halves, change: Change) -> Iterator[None]:
    """A context in which the MLP half of a block starts from changed hidden states.

    The new hidden states are rounded where they are the result of an addition. But if `change` returns the block's
    input, and the attention half makes a single addition, the MLP half reads exactly that input. A module of the block
    that is called while the block is not running computes what it always does.
    """
    begun: list[Tensor] = []
    forward = block.forward

    def begin(*args: Any, **kwargs: Any) -> Any:
        begun[:] = [block_input(args, kwargs)]
        try:
            return forward(*args, **kwargs)
        finally:
            begun.clear()

    with ExitStack() as undo:
        undo.enter_context(computing(block, begin))
        if halves.giver is not None:

            def give(_module: nn.Module, _args: Any, output: Any) -> Any:
                if not begun:
                    return output
                middle = hidden_states(output)
                start = begun[0].to(middle.device)
                return with_hidden(output, change(start, middle.view_as(start)).view_as(middle))

            undo.enter_context(block.get_submodule(halves.giver).register_forward_hook(give))
        else:
            undo.enter_context(_adding(block, halves.branches, begun, change))
        yield


@contextmanager
def _adding(block: nn.Module, branches: tuple[Tap, ...], begun: list[Tensor], change: Change) -> Iterator[None]:
    """A context in which the last addition of the attention half results in what `change` returns."""
    with ExitStack() as undo:
        for tap in branches:

            def add(_module: nn.Module, _args: Any, output: Any, tap: Tap = tap) -> Any:
                if not begun:
                    return output
                added = hidden_states(output)
                start = begun[0].to(added.device)
                stream = begun[-1].to(added.device)
                middle = torch.add(stream, added.view_as(stream), alpha=tap.scale)
                if tap is not branches[-1]:
                    begun.append(middle)
                    return output
                other = (change(start, middle) - stream) / tap.scale
                return with_hidden(output, other.to(added.dtype).view_as(added))

            undo.enter_context(block.get_submodule(tap.path).register_forward_hook(add))
        yield

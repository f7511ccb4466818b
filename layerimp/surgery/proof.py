"""Verifies a removal: the pruned model computes the same as the intact one with the removed blocks bypassed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from layerimp.blocks.equivalence import (
    TOKENS,
    TOLERANCE,
    Probe,
    cached_logits,
    deviation,
    last_hidden,
    require_finite,
)
from layerimp.blocks.forward import block_input, hidden_states
from layerimp.errors import LayerimpError, SurgeryError, one_line
from layerimp.indices import named

if TYPE_CHECKING:
    from torch import Tensor, nn

    from layerimp.blocks.stack import BlockStack

_LOCAL = re.compile(r"sliding_window|attention_chunk|window_size")
"""Fields that limit how far attention looks back."""


@dataclass(frozen=True)
class Past:
    """The outputs of the intact model with blocks bypassed.

    Attributes:
        probe: The inputs.
        hidden: The last hidden states.
        cached: The logits with a cache; None if the model cannot use one.
        changed: For an image, the blocks after which the model itself changes the hidden states before the next block
            reads them, as it does where features of images are put in at several depths.
    """

    probe: Probe
    hidden: Tensor
    cached: Tensor | None
    changed: Sequence[int]

    def why(self) -> str:
        """Tell why another model computes something else."""
        return put_in(self.changed) if self.changed else "what its blocks do depends on their position"


def past(stack: BlockStack, removed: Sequence[int], probe: Probe) -> Past:
    """Return a model's outputs for a probe with blocks bypassed.

    Raises:
        NonFiniteError: an output holds a NaN or an infinity.
        SurgeryError: the model cannot run.
    """
    whose = f"{type(stack.model).__name__} past {named(removed)}"
    try:
        watched: AbstractContextManager[list[int]] = changes_between(stack) if probe.named else nullcontext([])
        with _short_windows(stack), watched as changed:
            hidden = last_hidden(stack, removed, probe)
    except LayerimpError:
        raise
    except Exception as error:  # a model may fail in any way
        kind = type(stack.model).__name__
        raise SurgeryError(f"{kind} cannot run on a few tokens{probe.named}: {one_line(error)}") from error
    require_finite(hidden, whose)
    try:
        cached = cached_logits(stack, removed, probe)
    except Exception:  # a model that cannot use a cache: there is nothing to compare
        return Past(probe, hidden, None, changed)
    if cached is not None:
        require_finite(cached, whose)
    return Past(probe, hidden, cached, changed)


def prove(stack: BlockStack, expected: Past, without: str) -> bool:
    """Compare the outputs of the pruned model with those of the intact model with the blocks bypassed.

    Args:
        stack: The blocks of the model, which is pruned now.
        expected: The outputs of the intact model.
        without: The removed blocks, for errors, such as `without 5`.

    Returns:
        Whether all values are equal bit for bit.

    Raises:
        SurgeryError: the outputs differ by more than rounding.
    """
    kind, how = type(stack.model).__name__, expected.probe.named
    try:
        with _short_windows(stack):
            off = deviation(expected.hidden, last_hidden(stack, probe=expected.probe))
        equal = off == 0
        if off <= TOLERANCE and expected.cached is not None:
            how += " with a cache"
            off = deviation(expected.cached, cached_logits(stack, probe=expected.probe), stack.model.dtype)
            equal = equal and off == 0
    except Exception as error:  # the kept blocks may fail in any way
        raise SurgeryError(f"{kind} cannot run{how} {without}: {one_line(error)}") from error
    if off > TOLERANCE:
        raise SurgeryError(
            f"{kind} computes differently{how} {without} than past it ({off:.2g} roundings off): {expected.why()}"
        )
    return equal


def put_in(changed: Sequence[int]) -> str:
    """Tell why blocks cannot be removed if the model itself changes the hidden states after some blocks."""
    return (
        f"it changes the hidden states after {named(changed)}, counted from the first, so that only blocks from "
        f"{max(changed) + 1} on can be removed"
    )


@contextmanager
def changes_between(stack: BlockStack) -> Iterator[list[int]]:
    """A context that collects the blocks whose output is not what the next block reads."""
    changed: list[int] = []
    left: list[Tensor] = []

    def enter(index: int, _block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        read = block_input(args, kwargs)
        if left and index and not torch.equal(left[0].to(read.device), read):
            changed.append(index - 1)

    def leave(_block: nn.Module, _args: Any, output: Any) -> None:
        left[:] = [hidden_states(output).clone()]  # the model may write into it

    with ExitStack() as hooks:
        for index, block in enumerate(stack):
            hooks.enter_context(block.register_forward_pre_hook(partial(enter, index), with_kwargs=True))
            hooks.enter_context(block.register_forward_hook(leave))
        yield changed


@contextmanager
def _short_windows(stack: BlockStack) -> Iterator[None]:
    """Limit local attention to fewer tokens than a trial has, so that it differs from full attention."""
    config = stack.config
    fields = {
        name: value
        for name, value in vars(config).items()
        if _LOCAL.search(name) and type(value) is int and value > TOKENS // 3
    }
    vars(config).update(dict.fromkeys(fields, TOKENS // 3))
    try:
        yield
    finally:
        vars(config).update(fields)

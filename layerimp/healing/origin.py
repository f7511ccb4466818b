"""Checks that a pruned model is the intact one without the removed blocks, and lets both share what is equal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING

import torch

from layerimp.errors import ModelError
from layerimp.healing.parameters import held_by, put
from layerimp.indices import checked_blocks, kept_blocks

if TYPE_CHECKING:
    from torch import Tensor, nn

    from layerimp.blocks.stack import BlockStack


def check_pair(intact: BlockStack, pruned: BlockStack, removed: Sequence[int]) -> bool:
    """Refuse a pruned model that is not the intact model without the removed blocks.

    Returns:
        Whether the pruned model has the parameters that the removal left, so that nothing has healed or trained it.

    Raises:
        ModelError: the architecture, the width, the vocabulary or the number of blocks is wrong, or a block is not the
            expected block of the intact model.
        OptionError: a block does not exist in the intact model, or is named twice.
    """
    check_shapes(intact, pruned, removed)
    same = _check_origin(intact, pruned, removed)
    return same and all(_equal(theirs, value) for theirs, value in _outside(intact, pruned))


def share(intact: BlockStack, pruned: BlockStack, removed: Sequence[int]) -> None:
    """Let a pruned model that was loaded by itself use the intact model's tensors where both are equal.

    So no weight is in memory twice, as after `Removal.beside`. A tensor on another device stays.

    Args:
        intact: The blocks of the intact model.
        pruned: The blocks of the pruned model, of the shapes that `check_shapes` expects.
        removed: The removed blocks.
    """
    blocks = [dict(block.named_parameters()) for block in intact]
    pairs = [(blocks[block].get(name), value) for _, block, name, value in _inside(intact, pruned, removed)]
    theirs = {
        id(value): other
        for other, value in chain(pairs, _outside(intact, pruned))
        if other is not None and other.device == value.device and _equal(other, value)
    }
    put([(module, name, theirs.get(id(value), value)) for module, name, value in held_by(pruned.model)])


def check_shapes(intact: BlockStack, pruned: BlockStack, removed: Sequence[int]) -> None:
    """Do the part of `check_pair` that needs no weights: everything except which blocks are left."""
    ours, theirs = pruned.model, intact.model
    if type(ours) is not type(theirs):
        raise ModelError(f"the pruned model is a {type(ours).__name__}, and the intact one a {type(theirs).__name__}")
    if pruned.vocab_size != intact.vocab_size:
        raise ModelError(f"the pruned model has {pruned.vocab_size} token ids, and the intact one {intact.vocab_size}")
    if pruned.config.hidden_size != intact.config.hidden_size:
        raise ModelError(
            f"the pruned model is {pruned.config.hidden_size} wide, and the intact one {intact.config.hidden_size}"
        )
    checked_blocks(removed, len(intact), what="removed block")
    left = len(intact) - len(removed)
    if left != len(pruned):
        raise ModelError(
            f"the pruned model has {len(pruned)} blocks in place of {left} ({len(intact)} without {len(removed)}): it "
            "is another model, or something else was removed"
        )


def _check_origin(intact: BlockStack, pruned: BlockStack, removed: Sequence[int]) -> bool:
    """Refuse a pruned model if a block holds a matrix of an unexpected block of the intact model.

    A matrix that was healed or trained after the removal matches no block, and is not checked.

    Returns:
        Whether all parameters of the blocks are the expected ones.
    """
    same = True
    for new, expected, name, value in _inside(intact, pruned, removed):
        if _holds(intact[expected], name, value):
            continue
        same = False
        holders = (i for i, block in enumerate(intact) if value.ndim > 1 and _holds(block, name, value))
        if (other := next(holders, None)) is not None:
            raise ModelError(
                f"block {new} of the pruned model has {name} of block {other} of the intact one, and not of "
                f"{expected}: something else was removed than is said"
            )
    return same


def _inside(
    intact: BlockStack, pruned: BlockStack, removed: Sequence[int]
) -> Iterator[tuple[int, int, str, nn.Parameter]]:
    """Yield the pruned model's parameters in blocks: block, the intact model's block it is from, name, parameter."""
    for new, index in enumerate(kept_blocks(removed, len(intact))):
        for name, value in pruned[new].named_parameters():
            yield new, index, name, value


def _outside(intact: BlockStack, pruned: BlockStack) -> Iterator[tuple[nn.Parameter, nn.Parameter]]:
    """Yield the parameters of both models outside the blocks, but for tables with an entry per block."""
    inside = {id(value) for block in pruned for value in block.parameters()}
    theirs = dict(intact.model.named_parameters())
    for path, value in pruned.model.named_parameters():
        if id(value) not in inside and path in theirs and theirs[path].shape == value.shape:
            yield theirs[path], value


def _holds(block: nn.Module, name: str, value: Tensor) -> bool:
    """Whether a block has a parameter with this name and value, bit for bit."""
    own = dict(block.named_parameters()).get(name)
    return own is not None and _equal(own, value)


def _equal(first: Tensor, second: Tensor) -> bool:
    """Whether two parameters are equal, bit for bit."""
    return first is second or (first.dtype == second.dtype and torch.equal(first.to(second.device), second))

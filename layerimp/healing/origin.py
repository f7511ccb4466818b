"""Checks that a pruned model is the intact one without the removed steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from layerimp.blocks.halves import halves_of
from layerimp.blocks.middle import in_mlp
from layerimp.errors import ModelError
from layerimp.steps import Step, checked_steps, kept_halves

if TYPE_CHECKING:
    from torch import Tensor, nn

    from layerimp.blocks.stack import BlockStack


def check_pair(intact: BlockStack, pruned: BlockStack, removed: Sequence[Step]) -> bool:
    """Refuse a pruned model that is not the intact model without the removed steps.

    Returns:
        Whether the pruned model has the parameters that the removal left, so that nothing has healed or trained it.

    Raises:
        ModelError: the architecture, the width, the vocabulary or the number of blocks is wrong, or a block is not the
            expected block of the intact model.
        OptionError: a step does not exist in the intact model, or overlaps with an earlier step.
    """
    check_shapes(intact, pruned, removed)
    same = _check_origin(intact, pruned, kept_halves(removed, len(intact)))
    return same and _same_outside(intact, pruned)


def check_shapes(intact: BlockStack, pruned: BlockStack, removed: Sequence[Step]) -> None:
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
    checked_steps(removed, len(intact), what="removed block")
    left = len(intact) - len(removed)
    if left != len(pruned):
        raise ModelError(
            f"the intact model has {len(intact)} blocks, of which {len(removed)} should be gone; that leaves {left}, "
            f"and the pruned model has {len(pruned)}: it is another model, or something else was removed"
        )


def _check_origin(intact: BlockStack, pruned: BlockStack, pairs: Sequence[tuple[int, int]]) -> bool:
    """Refuse a pruned model if a block holds a matrix of an unexpected block of the intact model.

    A matrix that was healed or trained after the removal matches no block, and is not checked.

    Args:
        intact: The blocks of the intact model.
        pruned: The blocks of the pruned model.
        pairs: For each block of the pruned model, the blocks that its attention and its MLP are expected to be from.

    Returns:
        Whether all parameters of the blocks are the expected ones.
    """
    same = True
    composed = halves_of(pruned, {new for new, pair in enumerate(pairs) if len(set(pair)) > 1})
    for new, (attention, mlp) in enumerate(pairs):
        for name, value in pruned[new].named_parameters():
            expected = mlp if new in composed and in_mlp(name, composed[new].mlp) else attention
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


def _same_outside(intact: BlockStack, pruned: BlockStack) -> bool:
    """Whether the parameters outside the blocks are the same; tables with an entry per block are not compared."""
    inside = {id(value) for block in pruned for value in block.parameters()}
    theirs = dict(intact.model.named_parameters())
    return all(
        theirs[path].shape != value.shape or _equal(theirs[path], value)
        for path, value in pruned.model.named_parameters()
        if id(value) not in inside and path in theirs
    )


def _holds(block: nn.Module, name: str, value: Tensor) -> bool:
    """Whether a block has a parameter with this name and value, bit for bit."""
    own = dict(block.named_parameters()).get(name)
    return own is not None and _equal(own, value)


def _equal(first: Tensor, second: Tensor) -> bool:
    """Whether two parameters are equal, bit for bit."""
    return first is second or (first.dtype == second.dtype and torch.equal(first.to(second.device), second))

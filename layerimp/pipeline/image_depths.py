"""Where a model puts features of images into its hidden states, found without its weights."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from layerimp.blocks.equivalence import Probe, last_hidden
from layerimp.blocks.forward import block_input, computing, with_hidden
from layerimp.blocks.modalities import made_up_images, takes_images
from layerimp.blocks.modes import quiet
from layerimp.models.discovery import find_blocks
from layerimp.surgery.meta_model import Builder
from layerimp.surgery.proof import changes_between

if TYPE_CHECKING:
    from layerimp.blocks.stack import BlockStack

_POOL = 1 << 16
"""The number of random values that all weights consist of."""
_PIXELS = 200_000
"""The most numbers in an image that is tried: a few patches, and not a whole picture."""


def image_depths(stack: BlockStack) -> list[int]:
    """Return the blocks after which a model puts in features of images; empty if there are none, or if not known.

    The model runs once over an image of a few patches. Its weights are views of a few random values and take no memory,
    and only its first block computes.

    Args:
        stack: The blocks of the model, on the meta device.
    """
    if not takes_images(stack.model):
        return []
    try:
        with quiet():
            built = find_blocks(Builder(stack.model).build(stack.model.config).eval())
            _fill(built.model)
            inputs = made_up_images(built, most=_PIXELS)
            if inputs is None:
                return []
            with ExitStack() as undo:
                shown: list[Any] = []
                for block in built:
                    undo.enter_context(computing(block, partial(_passing, block.forward, shown)))
                changed = undo.enter_context(changes_between(built))
                last_hidden(built, probe=Probe(inputs, 0))
            return changed
    except Exception:  # whatever a model makes of weights that were never trained
        return []


def _passing(forward: Callable[..., Any], shown: list[Any], *args: Any, **kwargs: Any) -> Any:
    """Pass the hidden states on, in the form of the first block's output."""
    if not shown:
        shown.append(forward(*args, **kwargs))
    return with_hidden(shown[0], block_input(args, kwargs))


def _fill(model: nn.Module) -> None:
    """Give a model random weights that overlap in memory."""
    pool = torch.randn(_POOL, generator=torch.Generator().manual_seed(0)) * 0.05
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.is_meta:
                setattr(module, name, nn.Parameter(_view(pool, parameter.shape), requires_grad=False))


def _view(pool: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Return a view with a shape of a few values, in which neighbouring rows differ."""
    strides = [0] * len(shape)
    reach = 1
    for axis in reversed(range(len(shape))):
        most = (_POOL - reach) // max(shape[axis] - 1, 1)
        strides[axis] = min(1 if axis == len(shape) - 1 else 7, most)
        reach += strides[axis] * (shape[axis] - 1)
    return pool.as_strided(shape, strides)

"""What a model does with images, video and audio, tried without its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from layerimp.blocks.equivalence import UNSEEN, Probe, last_hidden, text_probe
from layerimp.blocks.forward import block_input, computing, with_hidden
from layerimp.blocks.input_forms import vision_part
from layerimp.blocks.modalities import IMAGE, MODALITIES, Modality, made_up, needs_more_than, takes_none
from layerimp.blocks.modes import quiet
from layerimp.models.discovery import find_blocks
from layerimp.surgery.meta_model import Builder
from layerimp.surgery.proof import changes_between

if TYPE_CHECKING:
    from layerimp.blocks.stack import BlockStack

_POOL = 1 << 16
"""The number of random values that all weights consist of."""
_NUMBERS = 200_000
"""The most numbers in an input that is tried: a few patches, and not a whole picture."""


@dataclass(frozen=True)
class BesideText:
    """What a model does with inputs beside text, as far as it is known.

    Attributes:
        depths: The blocks after which the model puts in features of an input, by modality.
        untried: The modalities that it takes beside images, and of which layerimp can make up no input.
        refusal: Why no removal from it can be verified, and what would work; empty if one may be.
    """

    depths: Mapping[Modality, Sequence[int]] = field(default_factory=dict)
    untried: Sequence[Modality] = ()
    refusal: str = ""


def beside_text(stack: BlockStack) -> BesideText:
    """Try what a model does with inputs beside text.

    The model runs once over an input of a few patches for each modality. Its weights are views of a few random values
    and take no memory, and only its first block computes.

    Args:
        stack: The blocks of the model, on the meta device.
    """
    taken = [modality for modality in MODALITIES if modality.taken_by(stack.model)]
    if not taken:
        return BesideText()
    depths: dict[Modality, Sequence[int]] = {}
    untried: list[Modality] = []
    with quiet(), suppress(Exception):  # whatever a model makes of weights that were never trained
        built = find_blocks(Builder(stack.model).build(stack.model.config).eval())
        _fill(built.model)
        if refusal := needs_more_than(built, text_probe(built).inputs):
            return BesideText(refusal=f"{refusal}; layerimp needs a model that also runs on text alone")
        for modality in taken:
            with suppress(Exception):
                inputs = made_up(built, modality, most=_NUMBERS)
                if inputs is not None:
                    depths[modality] = _depths(built, Probe(inputs, 0, modality))
                elif takes_none(built, modality, most=_NUMBERS):
                    untried.append(modality)
    if IMAGE in untried and vision_part(stack.model.config) is not None:
        return BesideText(refusal=f"it {UNSEEN}; `score` and `evaluate` work on its text")
    shifted = {modality: blocks for modality, blocks in depths.items() if blocks}
    return BesideText(shifted, [modality for modality in untried if modality is not IMAGE])


def _depths(stack: BlockStack, probe: Probe) -> Sequence[int]:
    """Return the blocks after which a model itself changes the hidden states."""
    with ExitStack() as undo:
        shown: list[Any] = []
        for block in stack:
            undo.enter_context(computing(block, partial(_passing, block.forward, shown)))
        changed = undo.enter_context(changes_between(stack))
        last_hidden(stack, probe=probe)
    return changed


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
            if parameter.is_meta or not parameter.any():  # weights that begin as zeros would hide what they multiply
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

"""Makes up images for a model that sees, as the arguments of its forward and its vision configuration describe them.

No processor is needed. Each form is tried, and is accepted if the model takes it, and if what its first block receives
depends on the pixels. No block runs meanwhile.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._pytree import tree_leaves

from layerimp.blocks.forward import called, computing, without_cache
from layerimp.blocks.input_forms import Inputs, forms_of, number_in
from layerimp.blocks.modes import in_eval_mode, quiet
from layerimp.blocks.stack import probe_ids
from layerimp.errors import LayerimpError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PretrainedConfig, PreTrainedModel

    from layerimp.blocks.stack import BlockStack

_IMAGE_TOKEN = re.compile(r"(image|img|im|media)(_patch|_placeholder)?(_token)?(_id|_index)")
"""Fields that hold the id of the token in whose place the features of images stand."""
_BEFORE, _AFTER = 3, 9
"""The number of tokens of text before and after the images."""


def takes_images(model: PreTrainedModel) -> bool:
    """Whether the forward of a model takes pixels."""
    return "pixel_values" in inspect.signature(model.forward).parameters


def made_up_images(stack: BlockStack, count: int = 1, *, most: float = math.inf) -> Inputs | None:
    """Return a row of text [1, seq] with made-up images in it, as arguments of the model; None if none can be made up.

    Args:
        stack: The blocks of the model.
        count: The number of images.
        most: The most numbers that the images may have; larger forms are passed over.
    """
    names = frozenset(inspect.signature(stack.model.forward).parameters)
    with in_eval_mode(stack.model), torch.no_grad(), quiet():
        for form in forms_of(stack.model.config, names, count):
            if max(value.numel() for value in form.values()) > most:
                continue
            pixels = {name: value.to(stack.device, _dtype(stack, value)) for name, value in form.items()}
            for tokens in _features(stack, pixels, count):
                inputs = _with_text(stack, pixels, [tokens] * count, names)
                with suppress(LayerimpError):
                    if _depends_on_pixels(stack, inputs):
                        return inputs
    return None


class _ReachedError(LayerimpError):
    """Ends a pass at the first block, with what the block receives."""

    def __init__(self, received: list[Tensor]) -> None:
        super().__init__("the first block is reached")
        self.received = received


def _received(stack: BlockStack, inputs: Inputs) -> list[Tensor]:
    """Return the numbers that the first block receives.

    Raises:
        ModelError: the model does not take the inputs.
    """

    def stop(*args: Any, **kwargs: Any) -> None:
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        raise _ReachedError([tensor for tensor in given if tensor.is_floating_point()])

    with computing(stack[0], stop):
        try:
            part = whole_or_backbone(stack)
            called(part, **inputs, **without_cache(part))
        except _ReachedError as reached:
            return reached.received
    return []


def whole_or_backbone(stack: BlockStack) -> nn.Module:
    """Return the part of a model that turns inputs into hidden states; an encoder-decoder model as a whole."""
    # The backbone of an encoder-decoder model may need the ids of both; the whole model makes the decoder's ids itself.
    part: nn.Module = stack.model if stack.model.config.is_encoder_decoder else stack.backbone
    return part


def _depends_on_pixels(stack: BlockStack, inputs: Inputs) -> bool:
    """Whether the first block receives other numbers for other pixels.

    Raises:
        ModelError: the model does not take the inputs.
    """
    other = {name: value.flip(0, -1).neg() if value.is_floating_point() else value for name, value in inputs.items()}
    return any(
        not torch.equal(one, another)
        for one, another in zip(_received(stack, inputs), _received(stack, other), strict=False)
    )


def _features(stack: BlockStack, pixels: Inputs, count: int) -> Iterator[int]:
    """Yield possible numbers of tokens that an image takes in the text."""
    for owner in (stack.model.base_model, stack.model):  # the first has the arguments by name
        features: Any = getattr(owner, "get_image_features", None)
        if features is None:
            continue
        known = inspect.signature(features).parameters
        with suppress(Exception):  # a form that the model does not take
            output = features(**{name: value for name, value in pixels.items() if name in known})
            for name in ("pooler_output", "last_hidden_state"):
                if total := _rows(getattr(output, name, output)):
                    yield total // count
            for _, group in (getattr(output, "deepstack_features", None) or ())[:1]:  # each goes to another depth
                yield _rows(group) // count
        break
    yield 1  # images that are read by cross-attention need no more than a mark


def _rows(features: object) -> int:
    """Return the number of feature vectors in a tensor, or in several."""
    if isinstance(features, torch.Tensor):
        return math.prod(features.shape[:-1])
    return sum(map(_rows, features)) if isinstance(features, list | tuple) else 0


def _dtype(stack: BlockStack, value: Tensor) -> torch.dtype:
    """Return the dtype in which a model takes a value: pixels in its own."""
    return stack.model.dtype if value.is_floating_point() else value.dtype


def _with_text(stack: BlockStack, pixels: Inputs, tokens: Sequence[int], names: frozenset[str]) -> Inputs:
    """Put images into a row of text, each as its number of tokens."""
    config, text = stack.model.config, stack.config
    words = probe_ids(stack, _BEFORE + _AFTER)[0].tolist()
    mark = image_token(config) or image_token(text)
    begin = [token for token in [number_in(config, "vision_start_token_id")] if token is not None]
    row: list[int] = words[:_BEFORE]
    for image, length in enumerate(tokens):
        row += [] if mark is None else [*begin, *[mark] * length]
        row.append(words[image % len(words)])
    ids = torch.tensor([[*row, *words[_BEFORE:]]], device=stack.device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **pixels}
    for kinds in ("mm_token_type_ids", "token_type_ids"):
        if kinds in names and mark is not None:
            inputs[kinds] = (ids == mark).long()
    if "cross_attention_mask" in names and "aspect_ratio_mask" in pixels:
        seen = pixels["aspect_ratio_mask"]  # [batch, image, tile]
        inputs["cross_attention_mask"] = seen[:, None].expand(-1, ids.shape[1], -1, -1).contiguous()
    return inputs


def image_token(config: PretrainedConfig) -> int | None:
    """Return the id of the token in whose place the features of images stand; None if there is none, or not known."""
    known = (number_in(config, name) for name in ("image_token_id", "image_token_index"))
    others = (number_in(config, name) for name in vars(config) if _IMAGE_TOKEN.fullmatch(name))
    mapped = (getattr(config, "vocabulary_map", None) or {}).get("<image>")  # of models that read images as words
    return next((token for token in (*known, *others, mapped) if token is not None), None)

"""Makes up what a model reads beside text: images, video, audio.

No processor is needed. Each form is tried, and is accepted if the model takes it, and if what its first block receives
depends on its numbers. No block runs meanwhile.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._pytree import tree_leaves

from layerimp.blocks.forward import called, computing, without_cache
from layerimp.blocks.input_forms import Inputs, audio_forms, audio_part, image_forms, number_in, vision_part
from layerimp.blocks.modes import in_eval_mode, quiet
from layerimp.blocks.stack import probe_ids, whole_or_backbone
from layerimp.errors import LayerimpError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel

    from layerimp.blocks.stack import BlockStack

_BEFORE, _AFTER = 3, 9
"""The number of tokens of text before and after the images."""


@dataclass(frozen=True)
class Modality:
    """What a model may read beside text.

    Attributes:
        name: Its name in the fields of configurations and in the methods of models.
        phrase: One such input, for sentences.
        arguments: The arguments of a forward that hold it.
        kind: Its number in `mm_token_type_ids`.
        frames: The number of frames that an input is made of.
    """

    name: str
    phrase: str
    arguments: frozenset[str]
    kind: int
    frames: int = 1

    def taken_by(self, model: PreTrainedModel) -> bool:
        """Whether the forward of a model takes it, and the configuration describes what reads it."""
        # Some models that read images have no part of their own for them.
        described = self is IMAGE or (audio_part if self is AUDIO else vision_part)(model.config) is not None
        return described and not self.arguments.isdisjoint(inspect.signature(model.forward).parameters)

    def forms(self, config: PretrainedConfig, names: frozenset[str], count: int) -> Iterator[Inputs]:
        """Yield the forms in which a model may take some of it, judged by the names of its forward's arguments."""
        if self is AUDIO:
            yield from audio_forms(config, names, count)
            return
        own, beside = {name: name for name in names}, {}
        if self is VIDEO:  # it is read as images are, by arguments of other names
            own = {_as_of_images(name): name for name in names if "video" in name}
            per_video = {"num_frames_per_video": self.frames, "video_second_per_grid": 1}
            beside = {name: torch.tensor([value] * count) for name, value in per_video.items() if name in names}
        for form in image_forms(config, frozenset(own), count, self.frames):
            if form.keys() <= own.keys():
                yield {own[name]: value for name, value in form.items()} | beside

    def token(self, config: PretrainedConfig) -> int | None:
        """Return the id of the token in whose place its features stand; None if there is none, or not known."""
        if self is IMAGE:
            return image_token(config) or image_token(config.get_text_config())
        return number_in(config, f"{self.name}_token_id", f"{self.name}_token_index")

    def edge(self, config: PretrainedConfig, which: str) -> int | None:
        """Return the id of the token that stands before it (`start`) or after it (`end`); None if there is none."""
        senses = [self.name] if self is AUDIO else [self.name, "vision"]
        return number_in(config, *(f"{sense}_{which}_token_id" for sense in senses))


IMAGE = Modality("image", "an image", frozenset({"pixel_values"}), 1)
VIDEO = Modality("video", "a video", frozenset({"pixel_values_videos"}), 2, frames=2)
AUDIO = Modality("audio", "audio", frozenset({"input_features", "input_values"}), 3)
MODALITIES = (IMAGE, VIDEO, AUDIO)


def made_up(stack: BlockStack, modality: Modality, count: int = 1) -> Inputs | None:
    """Return a row of text [1, seq] with made-up inputs in it, as arguments of the model; None if none can be made up.

    Args:
        stack: The blocks of the model.
        modality: What stands in the row beside text.
        count: The number of these inputs.
    """
    with in_eval_mode(stack.model), torch.no_grad(), quiet():
        for form in _forms(stack, modality, count):
            for inputs in _rows(stack, modality, form, count):
                with suppress(LayerimpError):
                    if _depends_on(stack, inputs):
                        return inputs
    return None


def _forms(stack: BlockStack, modality: Modality, count: int) -> Iterator[Inputs]:
    """Yield the forms in which a model may take inputs, on its device and in its dtype."""
    for form in modality.forms(stack.model.config, _arguments(stack), count):
        yield {
            name: value.to(stack.device, stack.model.dtype if value.is_floating_point() else None)
            for name, value in form.items()
        }


def _arguments(stack: BlockStack) -> frozenset[str]:
    """Return the names of the arguments of a model's forward."""
    return frozenset(inspect.signature(stack.model.forward).parameters)


def not_tried(modalities: Sequence[Modality]) -> str:
    """Say of a model that it reads what cannot be made up."""
    names = " and ".join(modality.name for modality in modalities)
    return f"it also reads {names}, which layerimp cannot make up: removals are not tried with it"


class _ReachedError(LayerimpError):
    """Ends a pass at the first block, with what the block receives."""

    def __init__(self, received: list[Tensor]) -> None:
        super().__init__("the first block is reached")
        self.received = received


def _received(stack: BlockStack, inputs: Mapping[str, Tensor]) -> list[Tensor]:
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


def _depends_on(stack: BlockStack, inputs: Inputs) -> bool:
    """Whether the first block receives other numbers for other values.

    Raises:
        ModelError: the model does not take the inputs.
    """
    other = {name: value.flip(0, -1).neg() if value.is_floating_point() else value for name, value in inputs.items()}
    return any(
        not torch.equal(state, changed)
        for state, changed in zip(_received(stack, inputs), _received(stack, other), strict=False)
    )


def _as_of_images(name: str) -> str:
    """Return the name that an argument has for images, given that for videos, if there is the same for images."""
    return re.sub("^video_(?!second)", "image_", name).removesuffix("_videos")


def _rows(stack: BlockStack, modality: Modality, values: Inputs, count: int) -> Iterator[Inputs]:
    """Yield the rows of text in which inputs may stand: their places in one run, or in one for each frame."""
    config = stack.model.config
    marks = [modality.token(config)]
    if modality is VIDEO:
        marks.append(IMAGE.token(config))  # in some models the start token alone tells a video from an image
    for tokens in _features(stack, modality, values, count):
        for mark, runs in product(dict.fromkeys(marks), dict.fromkeys((1, modality.frames))):
            yield _with_text(stack, modality, values, mark, [tokens // runs] * runs * count)


def _features(stack: BlockStack, modality: Modality, values: Inputs, count: int) -> Iterator[int]:
    """Yield possible numbers of tokens that an input takes in the text."""
    as_images = {_as_of_images(name): value for name, value in values.items()}
    for owner in (stack.model.base_model, stack.model):  # the first has the arguments by name
        features: Any = getattr(owner, f"get_{modality.name}_features", None)
        if features is None and modality is VIDEO:
            features = getattr(owner, "get_image_features", None)
        if features is None:
            continue
        known = inspect.signature(features).parameters
        with suppress(Exception):  # a form that the model does not take
            output = features(**{name: value for name, value in (as_images | values).items() if name in known})
            for name in ("pooler_output", "last_hidden_state"):
                if total := _vectors(getattr(output, name, output)):
                    yield total // count
            for _, group in (getattr(output, "deepstack_features", None) or ())[:1]:  # each goes to another depth
                yield _vectors(group) // count
        break
    if padded := number_in(stack.model.config, f"{modality.name}_soft_tokens_per_image"):  # Gemma 3n's audio
        yield padded
    yield 1  # images that are read by cross-attention need no more than a mark


def _vectors(features: object) -> int:
    """Return the number of feature vectors in a tensor, or in several."""
    if isinstance(features, torch.Tensor):
        return math.prod(features.shape[:-1])
    return sum(map(_vectors, features)) if isinstance(features, list | tuple) else 0


def _with_text(stack: BlockStack, modality: Modality, values: Inputs, mark: int | None, runs: Sequence[int]) -> Inputs:
    """Put inputs into a row of text, as runs of their token."""
    names = _arguments(stack)
    words = probe_ids(stack, _BEFORE + _AFTER)[0].tolist()
    start, end = (modality.edge(stack.model.config, which) for which in ("start", "end"))
    row: list[int] = words[:_BEFORE]
    for number, length in enumerate(runs):
        places = [] if mark is None else [start, *[mark] * length, end]
        row += [token for token in [*places, words[number % len(words)]] if token is not None]
    ids = torch.tensor([[*row, *words[_BEFORE:]]], device=stack.device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **values}
    for kinds in ("mm_token_type_ids", "token_type_ids"):
        if kinds in names and mark is not None:
            inputs[kinds] = (ids == mark).long() * modality.kind
    if "cross_attention_mask" in names and "aspect_ratio_mask" in values:
        seen = values["aspect_ratio_mask"]  # [batch, image, tile]
        inputs["cross_attention_mask"] = seen[:, None].expand(-1, ids.shape[1], -1, -1).contiguous()
    return inputs


_IMAGE_TOKEN = re.compile(r"(image|img|im|media)(_patch|_placeholder)?(_token)?(_id|_index)")
"""Fields that hold the id of the token in whose place the features of images stand."""


def image_token(config: PretrainedConfig) -> int | None:
    """Return the id of the token in whose place the features of images stand; None if there is none, or not known."""
    known = (number_in(config, name) for name in ("image_token_id", "image_token_index"))
    others = (number_in(config, name) for name in vars(config) if _IMAGE_TOKEN.fullmatch(name))
    mapped = (getattr(config, "vocabulary_map", None) or {}).get("<image>")  # of models that read images as words
    return next((token for token in (*known, *others, mapped) if token is not None), None)

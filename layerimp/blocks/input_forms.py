"""The forms in which a model may take images, video and audio, by its forward's arguments and its configuration."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig

Inputs = dict[str, "Tensor"]
"""The arguments of a model's forward."""
_VISION = re.compile(r"(vision|image|vq)(_\w+)?")
"""The part of a configuration that describes how images are read."""


def vision_part(config: PretrainedConfig) -> PretrainedConfig | None:
    """Return the part of a configuration that describes how images are read; None if there is none."""
    parts = (part for name, part in vars(config).items() if _VISION.fullmatch(name) and hasattr(part, "to_diff_dict"))
    return next(parts, None)


def audio_part(config: PretrainedConfig) -> PretrainedConfig | None:
    """Return the part of a configuration that describes how sounds are read; None if there is none."""
    part = getattr(config, "audio_config", None)
    return part if hasattr(part, "to_diff_dict") else None


def number_in(config: PretrainedConfig, *names: str) -> int | None:
    """Return the first of some fields that holds a number."""
    values = (getattr(config, name, None) for name in names)
    return next((value for value in values if type(value) is int), None)


def _sides(value: object) -> tuple[int, int] | None:
    """Return a height and a width, which a configuration may say in several forms."""
    if type(value) is int:
        return value, value
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, list | tuple) and len(value) >= 2 and all(type(side) is int for side in value):
        return value[-2], value[-1]
    return None


def image_forms(config: PretrainedConfig, names: frozenset[str], count: int, frames: int = 1) -> Iterator[Inputs]:
    """Yield the forms in which a model may take images, or videos under the names of images.

    Args:
        config: The configuration of the model.
        names: The arguments of its forward.
        count: The number of images or videos.
        frames: The number of frames of each; 1 for images.
    """
    vision = vision_part(config) or config
    channels = number_in(vision, "num_channels", "in_channels", "in_chans") or 3
    patch = _sides(getattr(vision, "patch_size", None)) or (14, 14)
    merge = (_sides(getattr(vision, name, None)) for name in ("spatial_merge_size", "merge_size", "merge_kernel_size"))
    side = 2 * math.lcm(*next((sides for sides in merge if sides), (2, 2)), 2)
    for argument, form in _PATCHED.items():
        if argument in names:
            yield from form(vision, (channels, *patch), side, count, frames)
    stated = [getattr(vision, name, None) for name in ("image_size", "img_size")]
    stated.append((getattr(vision, "model_args", None) or {}).get("img_size"))  # of models by timm
    if not hasattr(vision, "image_size"):
        stated.append((side * patch[0], side * patch[1]))
    for sides in filter(None, map(_sides, stated)):
        if frames == 1:
            yield from _whole(config, names, (channels, *sides), count)
        else:
            yield {"pixel_values": _pixels(count, frames, channels, *sides)}
    if frames == 1:
        yield {"pixel_values": _pixels(count, side * side, channels * patch[0] * patch[1])}


def _whole(
    config: PretrainedConfig, names: frozenset[str], shape: tuple[int, int, int], count: int
) -> Iterator[Inputs]:
    """Yield forms in which an image is a rectangle of pixels: alone, in rows of images, or in tiles."""
    sizes: Inputs = {"image_sizes": torch.tensor([shape[1:]] * count)} if "image_sizes" in names else {}
    if "aspect_ratio_ids" in names:
        tiles = number_in(vision_part(config) or config, "max_num_tiles") or 1
        yield {
            "pixel_values": _pixels(1, count, tiles, *shape),
            "aspect_ratio_ids": torch.ones((1, count), dtype=torch.long),
            "aspect_ratio_mask": torch.ones((1, count, tiles), dtype=torch.long),
        }
    for beside in ({}, sizes) if sizes else ({},):
        yield {"pixel_values": _pixels(count, *shape), **beside}
        yield {"pixel_values": _pixels(1, count, *shape), **beside}
    if "pixel_attention_mask" in names:
        real = torch.ones((1, count), dtype=torch.bool)
        yield {"pixel_values": _pixels(1, count, *shape), "pixel_attention_mask": real}
    for tiles in (2, 3, 5, 10):
        yield {"pixel_values": _pixels(count, tiles, *shape), **sizes}
    if "high_res_pixel_values" in names:
        part = getattr(config, "high_res_vision_config", None)
        finer = _sides(getattr(part, "image_size", None)) or shape[1:]
        yield {"pixel_values": _pixels(count, *shape), "high_res_pixel_values": _pixels(count, shape[0], *finer)}
    if "pixel_values_images" in names:
        yield {"pixel_values_images": _pixels(count, *shape)}


def _in_a_grid(
    vision: PretrainedConfig, patch: tuple[int, int, int], side: int, count: int, frames: int
) -> Iterator[Inputs]:
    """Yield the form in which the patches of all images follow one another, beside their grids [image, (t, h, w)]."""
    stated = number_in(vision, "temporal_patch_size")
    merged = {"image_merge_sizes": torch.tensor([side // 2] * count)}
    for many in (side, 4 * side):
        patches = count * frames * many * many
        beside = {"image_grid_thw": torch.tensor([[frames, many, many]] * count)}
        for depth in dict.fromkeys((stated or 1, 1, 2)):
            flat = _pixels(patches, depth * math.prod(patch))
            yield {"pixel_values": flat, **beside}
            yield {"pixel_values": flat, **beside, **merged}
        yield {"pixel_values": _pixels(patches, *patch), **beside}


def _in_shapes(
    _vision: PretrainedConfig, patch: tuple[int, int, int], side: int, count: int, frames: int
) -> Iterator[Inputs]:
    """Yield the form in which each image is a row of patches, beside their shapes [image, (h, w)]."""
    images = count * frames
    yield {
        "pixel_values": _pixels(images, side * side, math.prod(patch)),
        "spatial_shapes": torch.tensor([[side, side]] * images),
        "pixel_attention_mask": torch.ones((images, side * side), dtype=torch.long),
    }


def _with_positions(
    vision: PretrainedConfig, patch: tuple[int, int, int], side: int, count: int, frames: int
) -> Iterator[Inputs]:
    """Yield the form in which each image is a row of patches, beside the positions [image, patch, (x, y)] of these."""
    pooled = number_in(vision, "pooling_kernel_size") or 1
    side = math.lcm(side, pooled)
    places = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="xy"), dim=-1).flatten(0, 1)
    images = count * frames
    for factor in dict.fromkeys((1, pooled)):
        yield {
            "pixel_values": _pixels(images, side * side, math.prod(patch) * factor**2),
            "image_position_ids": places[None].repeat(images, 1, 1),
        }


def _in_a_strip(
    _vision: PretrainedConfig, patch: tuple[int, int, int], side: int, count: int, frames: int
) -> Iterator[Inputs]:
    """Yield the form in which the patches of all images lie side by side in a strip, beside their grids."""
    images, (channels, height, width) = count * frames, patch
    for many in (side, 2 * side):
        yield {
            "pixel_values": _pixels(1, channels, height, images * many * many * width),
            "target_sizes": torch.tensor([[many, many]] * images, dtype=torch.int32),
        }


_PATCHED: dict[str, Callable[..., Iterator[Inputs]]] = {
    "image_grid_thw": _in_a_grid,
    "spatial_shapes": _in_shapes,
    "image_position_ids": _with_positions,
    "target_sizes": _in_a_strip,
}
"""The forms in which an image is a number of patches, by the argument that tells where they lie."""


def audio_forms(config: PretrainedConfig, names: frozenset[str], count: int) -> Iterator[Inputs]:
    """Yield the forms in which a model may take sounds: their spectra at some times, or their samples."""
    part = audio_part(config) or config
    bands = number_in(part, *_BANDS) or 128
    for times in (32, 200):
        spectra, real = _pixels(count, times, bands), torch.ones((count, times), dtype=torch.bool)
        if "input_features_mask" in names:
            yield {"input_features": spectra, "input_features_mask": real}
        if "feature_attention_mask" in names:
            yield {"input_features": spectra.mT.contiguous(), "feature_attention_mask": real.long()}
        if "input_values" in names:
            yield {"input_values": _pixels(count, 3 * (number_in(part, "samples_per_token") or times))}


_BANDS = ("input_feat_size", "num_mel_bins", "feature_size", "audio_embed_dim")
"""Fields that hold the number of values that describe a sound at a time."""


def _pixels(*shape: int) -> Tensor:
    """Draw pixels, the same each time, and different from image to image."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1

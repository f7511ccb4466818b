"""The forms in which a model may take images, as the arguments of its forward and its configuration describe them."""

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


def forms_of(config: PretrainedConfig, names: frozenset[str], count: int) -> Iterator[Inputs]:
    """Yield the forms that a model may take, judged by the arguments of its forward."""
    vision = vision_part(config) or config
    channels = number_in(vision, "num_channels", "in_channels", "in_chans") or 3
    patch = _sides(getattr(vision, "patch_size", None)) or (14, 14)
    merge = (_sides(getattr(vision, name, None)) for name in ("spatial_merge_size", "merge_size", "merge_kernel_size"))
    side = 2 * math.lcm(*next((sides for sides in merge if sides), (2, 2)), 2)
    for argument, form in _PATCHED.items():
        if argument in names:
            yield from form(vision, channels, patch, side, count)
    stated = [getattr(vision, name, None) for name in ("image_size", "img_size")]
    stated.append((getattr(vision, "model_args", None) or {}).get("img_size"))  # of models by timm
    for sides in filter(None, map(_sides, stated)):
        yield from _whole(config, names, (channels, *sides), count)
    if not hasattr(vision, "image_size"):
        yield from _whole(config, names, (channels, side * patch[0], side * patch[1]), count)
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
    vision: PretrainedConfig, channels: int, patch: tuple[int, int], side: int, count: int
) -> Iterator[Inputs]:
    """Yield the form in which the patches of all images follow one another, beside their grids [image, (t, h, w)]."""
    stated = number_in(vision, "temporal_patch_size")
    merged = {"image_merge_sizes": torch.tensor([side // 2] * count)}
    for many in (side, 4 * side):
        patches, beside = count * many * many, {"image_grid_thw": torch.tensor([[1, many, many]] * count)}
        for frames in dict.fromkeys((stated or 1, 1, 2)):
            flat = _pixels(patches, frames * channels * patch[0] * patch[1])
            yield {"pixel_values": flat, **beside}
            yield {"pixel_values": flat, **beside, **merged}
        yield {"pixel_values": _pixels(patches, channels, *patch), **beside}


def _in_shapes(
    _vision: PretrainedConfig, channels: int, patch: tuple[int, int], side: int, count: int
) -> Iterator[Inputs]:
    """Yield the form in which each image is a row of patches, beside their shapes [image, (h, w)]."""
    yield {
        "pixel_values": _pixels(count, side * side, channels * patch[0] * patch[1]),
        "spatial_shapes": torch.tensor([[side, side]] * count),
        "pixel_attention_mask": torch.ones((count, side * side), dtype=torch.long),
    }


def _with_positions(
    vision: PretrainedConfig, channels: int, patch: tuple[int, int], side: int, count: int
) -> Iterator[Inputs]:
    """Yield the form in which each image is a row of patches, beside the positions [image, patch, (x, y)] of these."""
    pooled = number_in(vision, "pooling_kernel_size") or 1
    side = math.lcm(side, pooled)
    places = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="xy"), dim=-1).flatten(0, 1)
    for factor in dict.fromkeys((1, pooled)):
        yield {
            "pixel_values": _pixels(count, side * side, channels * patch[0] * patch[1] * factor**2),
            "image_position_ids": places[None].repeat(count, 1, 1),
        }


def _in_a_strip(
    _vision: PretrainedConfig, channels: int, patch: tuple[int, int], side: int, count: int
) -> Iterator[Inputs]:
    """Yield the form in which the patches of all images lie side by side in a strip, beside their grids."""
    for many in (side, 2 * side):
        yield {
            "pixel_values": _pixels(1, channels, patch[0], count * many * many * patch[1]),
            "target_sizes": torch.tensor([[many, many]] * count, dtype=torch.int32),
        }


_PATCHED: dict[str, Callable[..., Iterator[Inputs]]] = {
    "image_grid_thw": _in_a_grid,
    "spatial_shapes": _in_shapes,
    "image_position_ids": _with_positions,
    "target_sizes": _in_a_strip,
}
"""The forms in which an image is a number of patches, by the argument that tells where they lie."""


def _pixels(*shape: int) -> Tensor:
    """Draw pixels, the same each time, and different from image to image."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1

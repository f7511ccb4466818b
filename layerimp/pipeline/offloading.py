"""Decides whether a model is read block by block, because it does not fit into memory or because that is requested."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerimp.blocks.memory import free_bytes
from layerimp.errors import ModelError, OptionError
from layerimp.models.devices import device_named
from layerimp.models.dtypes import DTYPES
from layerimp.models.safetensors_files import read_headers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from layerimp.progress import Progress
    from layerimp.recipe import Recipe


def is_offloaded(recipe: Recipe, progress: Progress, whole: Sequence[str] = ()) -> bool:
    """Whether the blocks of a recipe's model stay in their files, and scoring reads them one after another.

    By default this is so if the model does not fit into the free memory of the device, and nothing needs it whole; then
    a line says so.

    Args:
        recipe: The recipe.
        progress: Where to report progress.
        whole: What needs the whole model in memory, in words.

    Raises:
        OptionError: the recipe asks for reading block by block, and for something that contradicts it.
        ModelError: the recipe asks for the whole model, which does not fit into memory.
    """
    if whole and recipe.offload:
        raise OptionError(f"{whole[0]} needs whole models in memory; an offloaded run takes --tasks none and no healer")
    if whole and recipe.offload is None:
        return False
    if recipe.offload and recipe.device_map is not None:
        raise OptionError("--offload reads a model block by block, and contradicts --device-map")
    if recipe.offload is False and (sizes := _lacking(recipe)):
        raise ModelError(f"the weights of {recipe.model} take {sizes}; --offload reads them block by block")
    if recipe.offload is not None or recipe.device_map is not None:
        return bool(recipe.offload)
    if sizes := _lacking(recipe):
        progress.note(
            f"{recipe.model} is read block by block, since its weights take {sizes} (an error with --no-offload)"
        )
    return bool(sizes)


def _lacking(recipe: Recipe) -> str:
    """Describe the needed and the free memory if a model's weights do not fit; empty if they fit, or if not known."""
    headers = read_headers(recipe.model)
    if headers is None:
        return ""
    needed, free = headers.bytes, free_bytes(device_named(recipe.device))
    if recipe.dtype in DTYPES:
        needed = sum(headers.numbers.values()) * DTYPES[recipe.dtype].itemsize
    return f"{needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free" if needed > free else ""

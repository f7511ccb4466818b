"""Decides whether a model is read block by block, because it does not fit into memory or because that is requested."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerimp.blocks.memory import free_bytes
from layerimp.errors import ModelError, OptionError
from layerimp.models.devices import device_named
from layerimp.models.dtypes import DTYPES
from layerimp.models.safetensors_files import read_headers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from layerimp.evaluator import Evaluator
    from layerimp.progress import Progress
    from layerimp.recipe import Recipe


def is_offloaded(recipe: Recipe, progress: Progress) -> bool:
    """Whether the blocks of a recipe's model stay in their files, and scoring reads them one after another.

    By default this is so if the model does not fit into the free memory of the device; then a line says so.

    Raises:
        OptionError: the recipe asks for reading block by block, and for something that contradicts it.
        ModelError: the recipe asks for the whole model, which does not fit into memory.
    """
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


def is_run_offloaded(recipe: Recipe, evaluators: Mapping[str, Evaluator], progress: Progress) -> bool:
    """Whether the blocks of a run's model stay in their files; see `is_offloaded`. If not requested, only if they can.

    Raises:
        OptionError: the recipe asks for reading block by block, and for work that needs whole models.
        ModelError: the recipe asks for the whole model, which does not fit into memory.
    """
    whole = [f"the evaluator {label}" for label, evaluator in evaluators.items() if evaluator.needs_weights]
    whole += ["--heal"] * bool(recipe.healers) + ["--keep"] * (recipe.keep is not None)
    if not whole or recipe.offload is False:
        return is_offloaded(recipe, progress)
    if recipe.offload:
        raise OptionError(f"{whole[0]} needs whole models in memory; an offloaded run takes --tasks none and no healer")
    return False


def _lacking(recipe: Recipe) -> str:
    """Describe the needed and the free memory if a model's weights do not fit; empty if they fit, or if not known."""
    headers = read_headers(recipe.model)
    if headers is None:
        return ""
    needed, free = headers.bytes, free_bytes(device_named(recipe.device))
    if recipe.dtype in DTYPES:
        needed = sum(headers.numbers.values()) * DTYPES[recipe.dtype].itemsize
    return f"{needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free" if needed > free else ""

"""Decides on which devices a model lies: one that is named, or all GPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from accelerate import infer_auto_device_map
from accelerate.utils import get_balanced_memory

from layerimp.errors import ModelError, OptionError, cause, listing
from layerimp.models.configuration import without_weights
from layerimp.models.discovery import find_blocks

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PretrainedConfig, PreTrainedModel


def device_named(device: str | torch.device | None) -> torch.device:
    """Return the device of a name; by default the first GPU, else the CPU.

    Raises:
        OptionError: this machine has no such device, or it is neither the CPU nor a CUDA GPU.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        raise OptionError(f"no device {str(device)!r} here: {cause(error)}") from None
    if place.type not in ("cpu", "cuda"):  # sums are in float64, which others such as Apple's lack
        raise OptionError(f"device {str(device)!r} is not supported; models compute on the CPU (cpu) or a GPU (cuda)")
    return place


def placed(loaded: PreTrainedModel, place: torch.device, name: str | Path) -> PreTrainedModel:
    """Put a model on a device.

    Raises:
        ModelError: the model does not fit there.
    """
    try:
        moved: PreTrainedModel = loaded.to(place)  # type: ignore[arg-type]  # a decorator hides its signature
        return moved
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"{str(name)!r} does not fit on {place}; a smaller dtype helps (--dtype), or several GPUs (--device-map "
            "auto), or the CPU (--device cpu)"
        ) from error


def spread_over_gpus(
    name: str | Path, config: PretrainedConfig, dtype: Any, trust_remote_code: bool
) -> dict[str, int | str]:
    """Assign each part of a model to a GPU, before its weights are read. No block is split.

    Raises:
        ModelError: the model does not fit on the GPUs.
    """
    chosen = None if dtype == "auto" else dtype
    meta_model = without_weights(config, trust_remote_code=trust_remote_code, dtype=chosen)
    whole = sorted(
        {*(meta_model._no_split_modules or ()), *(type(block).__name__ for block in find_blocks(meta_model))}
    )
    memory = get_balanced_memory(meta_model, no_split_module_classes=whole)
    parts: dict[str, int | str] = infer_auto_device_map(meta_model, max_memory=memory, no_split_module_classes=whole)
    if left := [part or "all of it" for part, place in parts.items() if place in ("cpu", "disk", "meta")]:
        raise ModelError(
            f"{str(name)!r} does not fit on the GPUs: there is no room for {listing(left, limit=5)}; more GPUs help, a "
            "smaller dtype (--dtype), or the CPU (--device cpu)"
        )
    return parts

"""Finds the device of a name."""

from __future__ import annotations

import torch

from layerimp.errors import OptionError, cause


def device_named(device: str | torch.device | None) -> torch.device:
    """Return the device of a name; by default the first GPU, else the CPU.

    Raises:
        OptionError: this machine has no such device, or it is neither the CPU nor a CUDA GPU.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if str(device).partition(":")[0] not in ("cpu", "cuda"):  # sums are in float64, which others such as Apple's lack
        raise OptionError(f"device {str(device)!r} is not supported; models compute on the CPU (cpu) or a GPU (cuda)")
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        raise OptionError(f"no device {str(device)!r} here: {cause(error)}") from None
    return place

"""How much memory is left."""

from __future__ import annotations

import psutil
import torch


def free_bytes(device: torch.device) -> int:
    """Bytes that are free on a device now; for all but CUDA, those of the machine."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)

"""The free memory of a device, and whether it is enough."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil
import torch

_MEMBERSHIP = Path("/proc/self/cgroup")
"""Names the control groups of this process, on Linux; see cgroups(7)."""
_GROUPS = Path("/sys/fs/cgroup")
_FILES = {
    "": ("memory.max", "memory.current", ""),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
}
"""By version of control groups: the files with the limit and the usage, and how numbers for a whole group begin."""


def free_bytes(device: torch.device) -> int:
    """Return the free memory of a device in bytes; for devices other than CUDA, that of the machine.

    Of a machine, no more counts than the control groups of this process allow: those of a container or a batch system.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # kept by torch for later use
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    return min([int(psutil.virtual_memory().available), *_left_in_groups()])


def shortage(needs: Iterable[tuple[torch.device, int]]) -> str:
    """Describe which device lacks memory, such as `needs 3.1 GiB more memory on cpu, where 2.0 GiB are free`.

    Args:
        needs: Devices, each with bytes that are needed there beside those in use; those of one device add up.

    Returns:
        The description; empty if there is enough memory, with a tenth to spare.
    """
    whole: Counter[torch.device] = Counter()
    for device, size in needs:
        whole[device] += size
    for device, size in whole.items():
        if (need := size * 1.1) > (free := free_bytes(device)):
            return f"needs {need / 2**30:.1f} GiB more memory on {device}, where {free / 2**30:.1f} GiB are free"
    return ""


def _left_in_groups() -> Iterator[int]:
    """Yield the bytes that each control group with a limit has left. Files in the cache give way."""
    try:
        lines = _MEMBERSHIP.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        version = "memory" if "memory" in controllers.split(",") else controllers
        if version not in _FILES:
            continue
        root = _GROUPS / version
        own = root / path.lstrip("/")
        # In a container the path may be that of the host, while only the container's own group is mounted.
        for group in (own, *own.parents):
            if group.is_relative_to(root) and (left := _left_in(group, *_FILES[version])) is not None:
                yield left


def _left_in(group: Path, limit: str, usage: str, prefix: str) -> int | None:
    """Return the bytes that a control group has left; None if it has no limit."""
    try:
        most, used = (int((group / name).read_text()) for name in (limit, usage))
        numbers = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # a group without a limit says `max`, or has no such file
        return None
    cached = sum(int(numbers.get(f"{prefix}{kind}_file", 0)) for kind in ("active", "inactive"))
    return max(0, most - used + cached)

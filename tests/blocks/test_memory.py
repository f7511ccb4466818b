"""The free memory: no more than what the control groups of the process leave."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from layerimp.blocks import memory

CPU = torch.device("cpu")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with a million free bytes, whose control groups are made in a directory."""
    monkeypatch.setattr(memory, "_MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(memory, "_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: SimpleNamespace(available=1_000_000))
    return tmp_path


def group(directory: Path, limit: object, used: int, cached: int, *, first: bool = False) -> None:
    """Make a control group, of the first version or of the second; half of the cached files are active."""
    directory.mkdir(parents=True, exist_ok=True)
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if first else ("memory.max", "memory.current")
    prefix = "total_" if first else ""
    for name, number in zip(names, (limit, used), strict=True):
        (directory / name).write_text(f"{number}\n")
    stat = {"anon": used - cached, f"{prefix}active_file": cached // 2, f"{prefix}inactive_file": cached - cached // 2}
    (directory / "memory.stat").write_text("".join(f"{name} {number}\n" for name, number in stat.items()))


def test_without_control_groups_the_machine_counts(machine: Path) -> None:
    assert memory.free_bytes(CPU) == 1_000_000
    (machine / "membership").write_text("0::/user\n")
    assert memory.free_bytes(CPU) == 1_000_000


def test_the_tightest_group_on_the_way_up_counts(machine: Path) -> None:
    """Files in the cache give way; a group without a limit says `max`, and the one above it still has one."""
    (machine / "membership").write_text("0::/job/step\n")
    group(machine / "groups/job", 50_000, 30_000, 10_000)
    group(machine / "groups/job/step", "max", 30_000, 10_000)
    assert memory.free_bytes(CPU) == 30_000
    group(machine / "groups/job/step", 40_000, 30_000, 5_000)
    assert memory.free_bytes(CPU) == 15_000
    group(machine / "groups/job/step", 20_000, 30_000, 5_000)
    assert memory.free_bytes(CPU) == 0


def test_the_first_version_of_control_groups(machine: Path) -> None:
    lines = ("12:cpu,cpuacct:/other", "7:memory:/job", "1:name=systemd:/", "0::/")
    (machine / "membership").write_text("\n".join(lines) + "\n")
    group(machine / "groups/memory/job", 70_000, 20_000, 8_000, first=True)
    group(machine / "groups/memory", 1 << 62, 500_000, 0, first=True)
    assert memory.free_bytes(CPU) == 58_000


def test_a_path_of_the_host_inside_a_container(machine: Path) -> None:
    """Only the container's own group is mounted, at the root."""
    (machine / "membership").write_text("0::/docker/0123abc\n")
    group(machine / "groups", 90_000, 40_000, 0)
    assert memory.free_bytes(CPU) == 50_000

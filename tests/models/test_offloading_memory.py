"""What is in memory while a model is read block by block."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.offloaded import TEXT, saved, scores
from support.tiny import tiny

from layerimp.models.offloading import open_offloaded
from layerimp.testing import BLOCKS


def test_one_block_is_in_memory_at_a_time(tmp_path: Path) -> None:
    stack = open_offloaded(saved(tiny("llama"), tmp_path / "model"))
    seen: list[list[int]] = []

    def look(*_: Any) -> None:
        seen.append([at for at, block in enumerate(stack) if not next(block.parameters()).is_meta])

    hooks = [block.register_forward_pre_hook(look) for block in stack]
    scores(stack, ["block-influence"])
    for hook in hooks:
        hook.remove()
    assert seen == [[at] for at in range(BLOCKS) for _ in TEXT]
    assert all(parameter.is_meta for block in stack for parameter in block.parameters())


def test_each_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = open_offloaded(saved(tiny("llama"), tmp_path / "model"))
    weights = stack.residency._weights  # type: ignore[union-attr]
    read: list[str] = []
    put = weights.put
    monkeypatch.setattr(weights, "put", lambda keys: (read.extend(keys), put(keys))[1])
    scores(stack, ["block-influence", "relative-magnitude"])
    inside = [key for key in weights.tensors if ".layers." in key]
    assert sorted(read) == sorted(inside)

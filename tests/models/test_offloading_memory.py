"""What is in memory while a model is read block by block, and what waits in files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.offloaded import TEXT, saved, scores
from support.tiny import tiny

import layerimp
from layerimp.errors import ModelError, OptionError
from layerimp.models import offloading
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
    monkeypatch.setattr(weights, "put", lambda keys, copies: (read.extend(keys), put(keys, copies))[1])
    scores(stack, ["block-influence", "relative-magnitude"])
    inside = [key for key in weights.tensors if ".layers." in key]
    assert sorted(read) == sorted(inside)


def test_hidden_states_may_wait_in_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory, scratch = saved(tiny("gemma2"), tmp_path / "model"), tmp_path / "scratch"
    scratch.mkdir()
    model, _ = layerimp.load(directory)
    stack = open_offloaded(directory, scratch=scratch)
    mapped: list[int] = []
    from_file = torch.UntypedStorage.from_file

    def counted(*args: Any, **options: Any) -> Any:
        if Path(args[0]).parent == scratch:
            mapped.append(options["nbytes"])
        return from_file(*args, **options)

    monkeypatch.setattr(torch.UntypedStorage, "from_file", counted)
    assert scores(stack) == scores(layerimp.find_blocks(model))
    hidden = [row["input_ids"].numel() * model.config.hidden_size * 4 for row in TEXT]
    assert mapped == hidden * BLOCKS
    assert not list(scratch.iterdir())


def test_a_full_scratch_directory_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = open_offloaded(saved(tiny("llama"), tmp_path / "model"), scratch=tmp_path)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(offloading, "NamedTemporaryFile", full)
    with pytest.raises(ModelError, match=r"cannot keep hidden states of .* MiB in .*No space left"):
        scores(stack, ["block-influence"])
    assert all(parameter.is_meta for block in stack for parameter in block.parameters())


def test_no_scratch_directory(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"there is no directory '.*nowhere'"):
        open_offloaded(saved(tiny("llama"), tmp_path / "model"), scratch=tmp_path / "nowhere")

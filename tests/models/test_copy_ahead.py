"""The next block of an offloaded model is copied to a GPU while another one runs, here to a simulated GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support import late_copies
from support.offloaded import saved, scores
from support.tiny import tiny

import layerimp
from layerimp.blocks import BlockStack
from layerimp.errors import ModelError
from layerimp.models import copy_ahead
from layerimp.models.copy_ahead import CopyAhead
from layerimp.models.offloading import OffloadedBlocks, open_offloaded
from layerimp.testing import BLOCKS


def copying(directory: Path, **options: Any) -> tuple[BlockStack, list[set[str]]]:
    """An offloaded model that copies the next block ahead, and the names of what was copied for each block."""
    stack = open_offloaded(directory, **options)
    residency: Any = stack.residency
    assert isinstance(residency, OffloadedBlocks)
    weights, copied = residency._weights, []
    tensors = [{key: weights.tensors[key] for key in keys} for keys in residency._keys]
    residency._ahead = CopyAhead(tensors, torch.device("cpu"))
    put = weights.put

    def seen(keys: Any, copies: Any) -> None:
        copied.append(set(copies))
        put(keys, copies)

    weights.put = seen  # type: ignore[method-assign]
    return stack, copied


def inside(stack: BlockStack, index: int) -> set[str]:
    """The names of a block's tensors in the files."""
    residency: Any = stack.residency
    return set(residency._keys[index])


@pytest.mark.same_bits("the scores with copies in the background, and in memory")
@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2", "mixtral", "bert"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_scores_are_those_in_memory(name: str, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = late_copies.simulate(monkeypatch).events
    directory = saved(tiny(name), tmp_path / "model", max_shard_size="40KB")
    stack, copied = copying(directory, dtype=dtype)
    expected = scores(layerimp.find_blocks(layerimp.load(directory, dtype=dtype)[0]))
    assert scores(stack) == expected
    # The first block is loaded when it is needed; the others come from copies alone.
    assert copied[-BLOCKS:] == [set(), *(inside(stack, index) for index in range(1, BLOCKS))]
    # The room for a block may hold what the GPU still reads, so that the copies of each block wait.
    assert events[0] == "wait"
    assert events.count("wait") == sum(map(bool, copied))
    assert events.count("copy") > len(set().union(*copied))
    assert all(one.is_meta for block in stack for one in block.parameters())


def test_one_block_alone_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without room for a second block, each is loaded when the block before it has gone."""
    late_copies.simulate(monkeypatch)
    directory = saved(tiny("llama"), tmp_path / "model")
    stack, copied = copying(directory)

    class Full:
        def __getattr__(self, name: str) -> Any:
            return getattr(torch, name)

        def empty(self, *_: Any, **__: Any) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(copy_ahead, "torch", Full())
    assert scores(stack) == scores(layerimp.find_blocks(layerimp.load(directory)[0]))
    assert not any(copied)


def test_without_page_locked_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    late_copies.simulate(monkeypatch)

    def refused(_size: int) -> None:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(copy_ahead, "_page_locked", refused)
    directory = saved(tiny("llama"), tmp_path / "model")
    stack, copied = copying(directory)
    assert scores(stack) == scores(layerimp.find_blocks(layerimp.load(directory)[0]))
    assert not any(copied)


def test_a_file_that_becomes_shorter_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    late_copies.simulate(monkeypatch)
    directory = saved(tiny("llama"), tmp_path / "model")
    stack, _ = copying(directory)
    file = directory / "model.safetensors"
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match=r"cannot read .*model\.safetensors"):
        scores(stack, ["block-influence"])


def test_a_pass_that_is_given_up_lets_the_copies_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error while the next block is copied does not reach the next pass."""
    late_copies.simulate(monkeypatch)
    directory = saved(tiny("llama"), tmp_path / "model")
    stack, copied = copying(directory)

    def broken(*_: Any) -> None:
        raise KeyboardInterrupt

    with stack[1].register_forward_pre_hook(broken), pytest.raises(KeyboardInterrupt):
        scores(stack, ["block-influence"])
    copied.clear()
    assert scores(stack) == scores(layerimp.find_blocks(layerimp.load(directory)[0]))
    assert copied[-BLOCKS:] == [set(), *(inside(stack, index) for index in range(1, BLOCKS))]

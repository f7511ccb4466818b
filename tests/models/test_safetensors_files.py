"""The headers of safetensors files say what is in them, and a broken file is named in one line, whatever reads it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.mood import Run
from support.tiny import saved, tiny

import layerimp
from layerimp.errors import ModelError
from layerimp.models.offloading import open_offloaded
from layerimp.models.safetensors_files import headers_in, read_headers, tensors_in


def test_a_header_tells_where_each_tensor_lies(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    stored = {"a": torch.randn(3, 5), "b": torch.tensor(2.0), "c": torch.arange(7), "d": torch.randn(2, 2).bfloat16()}
    save_file(stored, file)
    content, tensors = file.read_bytes(), tensors_in(file)
    assert list(tensors) == ["a", "b", "c", "d"]
    for name, tensor in stored.items():
        header = tensors[name]
        assert header.shape == tensor.shape
        part = torch.frombuffer(bytearray(content[header.begin : header.end]), dtype=tensor.dtype)
        assert torch.equal(part.view(tensor.shape), tensor)


def test_numbers_and_bytes_are_those_of_all_files(tmp_path: Path) -> None:
    directory = saved(tiny("llama"), tmp_path / "model", max_shard_size="40KB")
    files = sorted(directory.glob("*.safetensors"))
    tensors = [tensor for file in files for tensor in load_file(file).values()]
    headers = headers_in(directory)
    assert headers.files == len(files) > 1
    assert headers.numbers == {"F32": sum(tensor.numel() for tensor in tensors)}
    assert headers.bytes == sum(tensor.nbytes for tensor in tensors)
    assert read_headers("a/name-on-the-hub") is None


def shorter(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def longer(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"more")


def of_another_format(file: Path) -> None:
    file.write_bytes(b"PK" * 500)


def with_a_broken_header(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b'"dtype"', b'"dtipe"', 1))


def empty(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize("read", [read_headers, layerimp.load, open_offloaded])
@pytest.mark.parametrize("damage", [shorter, longer, of_another_format, with_a_broken_header, empty])
def test_a_broken_file_is_named_in_one_line(
    tmp_path: Path, damage: Callable[[Path], None], read: Callable[[Any], object]
) -> None:
    directory = saved(tiny("llama"), tmp_path / "model")
    damage(directory / "model.safetensors")
    with pytest.raises(
        ModelError, match=r"^cannot read /.*/model\.safetensors, which is broken or incomplete: "
    ) as raised:
        read(str(directory))
    assert "\n" not in str(raised.value)


def test_a_broken_file_ends_a_command(tmp_path: Path, layerimp_command: Run) -> None:
    directory = saved(tiny("llama"), tmp_path / "model")
    shorter(directory / "model.safetensors")
    for command in ("inspect", "score"):
        code, out, err = layerimp_command(command, "--model", directory)
        assert (code, out) == (2, "")
        assert "model.safetensors, which is broken or incomplete" in err.splitlines()[-1]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    directory = saved(tiny("llama"), tmp_path / "model", max_shard_size="40KB")
    index = json.loads((directory / "model.safetensors.index.json").read_text())
    name = sorted(set(index["weight_map"].values()))[1]
    (directory / name).unlink()
    for read in (read_headers, layerimp.load, open_offloaded):
        with pytest.raises(ModelError, match=f"^cannot read .*{name}: "):
            read(str(directory))  # type: ignore[operator]

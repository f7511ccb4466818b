"""Writes a checkpoint by copying the bytes of tensors from the files of another one, under other names."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any

from layerimp.errors import CheckpointError, OutputError, one_line
from layerimp.models.safetensors_files import Stored

_PIECE = 8 << 20
"""How many bytes are copied at a time."""
_WIDEST = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "BF16": 2, "F16": 2, "I16": 2, "U16": 2}


def copy_weights(
    tensors: Mapping[str, Stored],
    directory: Path,
    *,
    max_bytes: int | None = None,
    advance: Callable[[int], None] = lambda _bytes: None,
) -> None:
    """Write safetensors files that hold tensors of other files, a few MiB in memory at a time.

    Args:
        tensors: The tensors, by the names that they get.
        directory: Where the files are written; it exists.
        max_bytes: How large a file gets; by default the tensors are grouped as in the files that they come from.
        advance: Called with the number of bytes that were copied.

    Raises:
        OutputError: a file cannot be written.
        CheckpointError: a file that is read is shorter than it was.
    """
    parts = list(_parts(tensors, max_bytes))
    names = [_file_name(number, len(parts)) for number in range(len(parts))]
    try:
        for name, part in zip(names, parts, strict=True):
            _write(directory / name, part, advance)
        if len(parts) > 1:
            index = {key: name for name, part in zip(names, parts, strict=True) for key in part}
            total = sum(tensor.bytes for tensor in tensors.values())
            document = {"metadata": {"total_size": total}, "weight_map": dict(sorted(index.items()))}
            (directory / "model.safetensors.index.json").write_text(json.dumps(document, indent=2) + "\n")
    except OSError as error:
        raise OutputError(f"cannot write the weights in {directory.name}: {one_line(error)}") from error


def _file_name(number: int, count: int) -> str:
    return "model.safetensors" if count == 1 else f"model-{number + 1:05}-of-{count:05}.safetensors"


def _parts(tensors: Mapping[str, Stored], max_bytes: int | None) -> Iterator[dict[str, Stored]]:
    """The tensors that go into each file."""
    if max_bytes is None:
        files: dict[Path, dict[str, Stored]] = {}
        for key, tensor in tensors.items():
            files.setdefault(tensor.file, {})[key] = tensor
        yield from (files[file] for file in sorted(files))
        return
    part: dict[str, Stored] = {}
    for key, tensor in tensors.items():
        if part and sum(other.bytes for other in part.values()) + tensor.bytes > max_bytes:
            yield part
            part = {}
        part[key] = tensor
    yield part


def _write(file: Path, tensors: Mapping[str, Stored], advance: Callable[[int], None]) -> None:
    """Write one file: the length of the header, the header, and the tensors, those of wide numbers first."""
    order = sorted(tensors, key=lambda key: (-_WIDEST.get(tensors[key].kind, 1), key))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for key in order:
        tensor, begin = tensors[key], offset
        offset += tensor.bytes
        header[key] = {"dtype": tensor.kind, "shape": list(tensor.shape), "data_offsets": [begin, offset]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb", buffering=0) as written:
        written.write(struct.pack("<Q", len(text)) + text)
        for key in order:
            _append(tensors[key], written, advance)


def _append(tensor: Stored, written: FileIO, advance: Callable[[int], None]) -> None:
    """Append the bytes of a tensor to a file; by the system itself, where it can copy between two files."""
    done = 0
    with suppress(AttributeError, OSError), tensor.file.open("rb", buffering=0) as source:
        while done < tensor.bytes:
            count = min(tensor.bytes - done, _PIECE)
            if not (copied := os.copy_file_range(source.fileno(), written.fileno(), count, tensor.begin + done)):
                break
            done += copied
            advance(copied)
    for piece in _pieces(tensor, done):
        left = memoryview(piece)
        while left:
            left = left[written.write(left) :]
        advance(len(piece))


def _pieces(tensor: Stored, begin: int = 0) -> Iterator[bytes]:
    """The bytes of a tensor from one of them on, a few MiB at a time."""
    with tensor.file.open("rb", buffering=0) as file:
        file.seek(tensor.begin + begin)
        left = tensor.bytes - begin
        while left:
            piece = file.read(min(left, _PIECE))
            if not piece:
                raise CheckpointError(f"{tensor.file} is shorter than it was when it was opened")
            left -= len(piece)
            yield piece


def require_same_bytes(
    tensors: Mapping[str, Stored], copies: Mapping[str, Stored], advance: Callable[[int], None] = lambda _bytes: None
) -> None:
    """Compare copied tensors with those that they were copied from.

    Args:
        tensors: The tensors that were copied, by the names that they got.
        copies: The tensors in the files that were written, by name.
        advance: Called with the number of bytes that were compared.

    Raises:
        CheckpointError: a tensor is missing, or differs in any bit; names it.
    """
    for key, tensor in tensors.items():
        copy = copies.get(key)
        if copy is None or (copy.kind, copy.shape, copy.bytes) != (tensor.kind, tensor.shape, tensor.bytes):
            raise CheckpointError(f"the checkpoint's weight {key} is not the one that was copied")
        for piece, copied in zip(_pieces(tensor), _pieces(copy), strict=True):
            if piece != copied:
                raise CheckpointError(f"the checkpoint's weight {key} is not the one that was copied")
            advance(len(piece))
    if strange := sorted(copies.keys() - tensors.keys()):
        raise CheckpointError(f"the checkpoint holds a weight {strange[0]} that was not copied")

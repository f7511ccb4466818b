"""The safetensors files of a checkpoint: which they are, and the tensors in them by their headers alone.

A file that is broken, incomplete or missing is refused here, in one line that names it.
"""

from __future__ import annotations

import json
import math
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from layerimp._paths import expanded
from layerimp.errors import ModelError, one_line
from layerimp.registry.assets import located

if TYPE_CHECKING:
    from torch import Tensor

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"


@dataclass(frozen=True)
class Stored:
    """One tensor in a file.

    Attributes:
        file: The file.
        key: Its name in the file.
        begin: Where the tensor begins in it, in bytes.
        end: Where the tensor ends.
        kind: The name of its dtype in the format, such as `BF16`.
        shape: Its shape.
        targets: The parameters and buffers of a model that are made of the tensor, with others or alone; empty if that
            is not known.
    """

    file: Path
    key: str
    begin: int
    end: int
    kind: str
    shape: tuple[int, ...]
    targets: frozenset[str] = frozenset()

    @property
    def bytes(self) -> int:
        """What it takes in the file."""
        return self.end - self.begin


@dataclass(frozen=True)
class Headers:
    """The weight files of a checkpoint, as described by their headers.

    Attributes:
        tensors: The tensors in the files, by name. A tied weight may be stored twice.
    """

    tensors: Mapping[str, Stored]

    @property
    def files(self) -> int:
        """The number of files."""
        return len({tensor.file for tensor in self.tensors.values()})

    @property
    def bytes(self) -> int:
        """The size of the weights in the files, in bytes."""
        return sum(tensor.bytes for tensor in self.tensors.values())

    @property
    def numbers(self) -> dict[str, int]:
        """How many numbers of each kind, such as `BF16`, the files hold."""
        counts: Counter[str] = Counter()
        for tensor in self.tensors.values():
            counts[tensor.kind] += math.prod(tensor.shape)
        return dict(counts)


def read_headers(model: str) -> Headers | None:
    """Read the headers of a model's weight files; None if the model is not in a local directory.

    Raises:
        ModelError: a file cannot be read, or a file named in the index is missing.
    """
    directory = expanded(located("models", model))
    return headers_in(directory) if directory.is_dir() else None


def headers_in(directory: Path) -> Headers:
    """Read the headers of the weight files in a directory; see `read_headers`."""
    tensors: dict[str, Stored] = {}
    for name in weight_files(directory):
        tensors |= tensors_in(directory / name)
    return Headers(tensors)


def tensors_in(file: Path) -> dict[str, Stored]:
    """Return the tensors in a file, by name, in alphabetical order.

    The format: eight bytes say how long the header is, and the header, in JSON, where each tensor lies behind it.

    Raises:
        ModelError: the file cannot be read, or its header does not fit its length.
    """
    with opened(file), file.open("rb") as raw:  # safetensors has checked the header
        (length,) = struct.unpack("<Q", raw.read(8))
        header: dict[str, Any] = json.loads(raw.read(length))
    header.pop("__metadata__", None)
    begin = 8 + length
    tensors = {}
    for key, entry in sorted(header.items()):
        first, end = entry["data_offsets"]
        tensors[key] = Stored(file, key, begin + first, begin + end, entry["dtype"], tuple(entry["shape"]))
    return tensors


def mapped(tensors: Mapping[str, Stored]) -> dict[str, Tensor]:
    """Map tensors into memory, by the same names. What is read of their files is in the system's cache alone.

    Raises:
        ModelError: a file is missing, cannot be read, or is broken.
    """
    files = {file: opened(file) for file in {tensor.file for tensor in tensors.values()}}
    return {name: files[tensor.file].get_tensor(tensor.key) for name, tensor in tensors.items()}


def opened(file: Path) -> Any:
    """Open a file with safetensors.

    Raises:
        ModelError: the file is missing, cannot be read, or is broken.
    """
    try:
        return safe_open(file, "pt")
    except SafetensorError as error:
        raise ModelError(f"cannot read {file}, which is broken or incomplete: {one_line(error)}") from error
    except OSError as error:
        raise ModelError(f"cannot read {file}: {one_line(error)}") from error


def weight_files(directory: Path) -> list[str]:
    """The names of the weight files that are read, of those in a directory.

    Where a model is in one file and in several, Transformers reads the one.

    Raises:
        ModelError: the index cannot be read.
    """
    if (directory / WHOLE).exists():
        return [WHOLE]
    return sorted(set(indexed(directory).values()) or (file.name for file in directory.glob("*.safetensors")))


def indexed(directory: Path) -> dict[str, str]:
    """Return the weight file of each tensor, by the tensor's name, as the index in a directory says; empty without one.

    Raises:
        ModelError: the index cannot be read.
    """
    index = directory / INDEX
    if not index.exists():
        return {}
    try:
        files = json.loads(index.read_text(encoding="utf-8"))["weight_map"].items()
        return {str(key): str(file) for key, file in files}
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(f"{index} is no index of weight files") from error

"""The headers of safetensors files: names, shapes and dtypes, without reading a weight."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from layerimp._paths import expanded
from layerimp.errors import ModelError
from layerimp.registry.assets import located

_WHOLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_BITS = {"F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16, "U16": 16}
"""The size in bits of a number of each kind; other kinds, such as F8_E4M3, take 8 bits."""


@dataclass(frozen=True)
class Headers:
    """The weight files of a checkpoint, as described by their headers.

    Attributes:
        files: The number of files.
        numbers: How many numbers of each kind, such as `BF16`, the files hold. A tied weight may be stored twice.
    """

    files: int
    numbers: dict[str, int]

    @property
    def bytes(self) -> int:
        """The size of the weights in the files, in bytes."""
        return sum(count * _BITS.get(kind, 8) for kind, count in self.numbers.items()) // 8


def read_headers(model: str) -> Headers | None:
    """Read the headers of a model's weight files; None if the model is not in a local directory.

    If a directory holds a single file as well as several parts, the single file is read, as in Transformers.

    Raises:
        ModelError: a file cannot be read, or a file named in the index is missing.
    """
    directory = expanded(located("models", model))
    if not directory.is_dir():
        return None
    numbers: Counter[str] = Counter()
    names = weight_files(directory)
    for name in names:
        try:
            with safe_open(directory / name, "pt") as file:
                for key in file.keys():  # noqa: SIM118 - the file is not a mapping
                    part = file.get_slice(key)
                    numbers[part.get_dtype()] += math.prod(part.get_shape())
        except (OSError, SafetensorError) as error:
            raise ModelError(f"cannot read {directory / name}: {' '.join(str(error).split())}") from error
    return Headers(len(names), dict(numbers))


def weight_files(directory: Path) -> list[str]:
    """The names of the weight files that are read, of those in a directory.

    Where a model is in one file and in several, Transformers reads the one.

    Raises:
        ModelError: the index cannot be read.
    """
    if (directory / _WHOLE).exists():
        return [_WHOLE]
    return sorted(set(indexed(directory).values()) or (file.name for file in directory.glob("*.safetensors")))


def indexed(directory: Path) -> dict[str, str]:
    """Return the weight file of each tensor, by the tensor's name, as the index in a directory says; empty without one.

    Raises:
        ModelError: the index cannot be read.
    """
    index = directory / _INDEX
    if not index.exists():
        return {}
    try:
        files = json.loads(index.read_text(encoding="utf-8"))["weight_map"].items()
        return {str(key): str(file) for key, file in files}
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(f"{index} is no index of weight files") from error

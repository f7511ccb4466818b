"""Prepares the weights of the next block, in a thread, while another block is running."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from threading import Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from layerimp.models.safetensors_files import Stored

_PIECE = 8 << 20
"""The number of bytes that are read ahead at a time."""


class Ahead(ABC):
    """Prepares one block at a time, in a thread.

    Args:
        tensors: The tensors of each block, in their files, by name.
    """

    def __init__(self, tensors: Sequence[Mapping[str, Stored]]) -> None:
        self._tensors = tensors
        self._thread: Thread | None = None
        self._index = -1

    def begin(self, index: int) -> None:
        """Begin to prepare a block, after the previous one is prepared."""
        self._join()
        self._index = index
        tensors = sorted(self._tensors[index].items(), key=lambda item: (item[1].file, item[1].begin))
        self._thread = Thread(target=self._prepare, args=(tensors,), daemon=True)
        self._thread.start()

    def take(self, index: int) -> Mapping[str, Tensor]:
        """Wait until a block is prepared, if that was begun, and return those of its tensors that are in place."""
        if index != self._index:
            return {}
        self._join()
        self._index = -1
        return self._taken()

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    @abstractmethod
    def _prepare(self, tensors: Sequence[tuple[str, Stored]]) -> None:
        """Prepare the tensors of a block, given in the order of their files. Faults show when the block is loaded."""

    def _taken(self) -> Mapping[str, Tensor]:
        """Return the tensors that are in place, by name; those that are missing are loaded from their files."""
        return {}


class ReadAhead(Ahead):
    """Reads the files of a block into the system's cache; nothing is in place afterwards."""

    def _prepare(self, tensors: Sequence[tuple[str, Stored]]) -> None:
        piece = bytearray(_PIECE)
        for _, tensor in tensors:
            with suppress(OSError), tensor.file.open("rb", buffering=0) as file:
                file.seek(tensor.begin)
                left = tensor.bytes
                while left > 0 and (got := file.readinto(memoryview(piece)[: min(left, _PIECE)])):
                    left -= got

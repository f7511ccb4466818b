"""Reads the weights of the next block, in a thread, while another block is running."""

from __future__ import annotations

from contextlib import suppress
from threading import Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from layerimp.models.safetensors_files import Stored

_PIECE = 8 << 20
"""The number of bytes that are read ahead at a time."""


class ReadAhead:
    """Reads the files of one block at a time into the system's cache. Faults show when the block is loaded.

    Args:
        tensors: The tensors of each block, in their files.
    """

    def __init__(self, tensors: Sequence[Collection[Stored]]) -> None:
        self._tensors = tensors
        self._thread: Thread | None = None

    def begin(self, index: int) -> None:
        """Begin to read a block, after the previous one is read."""
        self.wait()
        self._thread = Thread(target=self._read, args=(index,), daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait until the block that was begun, if any, is read."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _read(self, index: int) -> None:
        piece = memoryview(bytearray(_PIECE))
        for tensor in sorted(self._tensors[index], key=lambda tensor: (tensor.file, tensor.begin)):
            with suppress(OSError), tensor.file.open("rb", buffering=0) as file:
                file.seek(tensor.begin)
                left = tensor.bytes
                while left > 0 and (got := file.readinto(piece[: min(left, _PIECE)])):
                    left -= got

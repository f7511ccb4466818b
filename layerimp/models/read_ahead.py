"""Reads the tensors of the next block into the system's cache, while another block is running."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from threading import Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from layerimp.models.stored_weights import Stored

_PIECE = 8 << 20
"""The number of bytes that are read ahead at a time."""


class ReadAhead:
    """Reads the files of a block into the system's cache, in a thread, while another block is running.

    Args:
        tensors: The tensors of each block, in their files.
    """

    def __init__(self, tensors: Sequence[Sequence[Stored]]) -> None:
        self._tensors = tensors
        self._thread: Thread | None = None
        self._index = -1

    def begin(self, index: int) -> None:
        """Begin to read a block, after the previous one is read."""
        if self._thread is not None:
            self._thread.join()
        self._index = index
        self._thread = Thread(target=self._read, args=(self._tensors[index],), daemon=True)
        self._thread.start()

    def wait(self, index: int) -> None:
        """Wait until the block that is being read, if any, is complete."""
        if self._thread is not None and self._index == index:
            self._thread.join()
            self._thread = None

    @staticmethod
    def _read(tensors: Sequence[Stored]) -> None:
        piece = bytearray(_PIECE)
        for one in sorted(tensors, key=lambda tensor: (tensor.file, tensor.begin)):
            with suppress(OSError), one.file.open("rb", buffering=0) as file:  # faults show when it is used
                file.seek(one.begin)
                left = one.end - one.begin
                while left > 0 and (got := file.readinto(memoryview(piece)[: min(left, _PIECE)])):
                    left -= got

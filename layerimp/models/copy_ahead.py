"""Copies the weights of the next block to a GPU while the GPU computes another block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import cycle
from typing import TYPE_CHECKING

import torch

from layerimp.models.dtypes import SAFETENSORS
from layerimp.models.read_ahead import Ahead

if TYPE_CHECKING:
    from io import FileIO

    from torch import Tensor

    from layerimp.models.safetensors_files import Stored

_PIECE = 16 << 20
"""The number of bytes that are copied at a time."""


class CopyAhead(Ahead):
    """Copies the tensors of a block from their files to a GPU, in a CUDA stream of its own.

    The files are read into two pieces of page-locked memory in turn, since a GPU copies only from such memory while it
    computes.

    Args:
        tensors: The tensors of each block, in their files, by name.
        device: The GPU.
    """

    def __init__(self, tensors: Sequence[Mapping[str, Stored]], device: torch.device) -> None:
        super().__init__(tensors)
        self._device, self._stream = device, torch.cuda.Stream(device)
        self._copies: dict[str, Tensor] = {}

    def begin(self, index: int) -> None:
        """Begin to copy a block, if there is room for it beside the block that is running."""
        self._join()
        self._copies = {}
        with suppress(torch.OutOfMemoryError):
            # The memory comes from the stream that computes, whose kernels may still read what was there before.
            self._copies = {
                key: torch.empty(tensor.shape, dtype=SAFETENSORS[tensor.kind], device=self._device)
                for key, tensor in self._tensors[index].items()
                if tensor.kind in SAFETENSORS
            }
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
            super().begin(index)

    def _prepare(self, tensors: Sequence[tuple[str, Stored]]) -> None:
        try:
            with torch.cuda.stream(self._stream):
                try:
                    self._copy([(tensor, self._copies[key]) for key, tensor in tensors if key in self._copies])
                finally:
                    self._stream.synchronize()
        except (OSError, RuntimeError):
            self._copies = {}

    @staticmethod
    def _copy(tensors: Sequence[tuple[Stored, Tensor]]) -> None:
        """Copy tensors piece by piece.

        Raises:
            OSError: a file cannot be read, or is too short.
            RuntimeError: memory cannot be page-locked, or the GPU fails.
        """
        pieces = cycle([(_page_locked(_PIECE), torch.cuda.Event()) for _ in range(2)])
        for tensor, copy in tensors:
            with tensor.file.open("rb", buffering=0) as file:
                file.seek(tensor.begin)
                for part in copy.reshape(-1).view(torch.uint8).split(_PIECE):
                    piece, copied = next(pieces)
                    copied.synchronize()  # until then the GPU may still read the piece
                    _fill(piece[: len(part)], file)
                    part.copy_(piece[: len(part)], non_blocking=True)
                    copied.record()

    def _taken(self) -> Mapping[str, Tensor]:
        copies, self._copies = self._copies, {}
        return copies


def _page_locked(size: int) -> Tensor:
    return torch.empty(size, dtype=torch.uint8, pin_memory=True)


def _fill(piece: Tensor, file: FileIO) -> None:
    """Fill a piece of memory from a file.

    Raises:
        OSError: the file cannot be read, or is too short.
    """
    left: memoryview = piece.numpy().data
    while left:
        if not (got := file.readinto(left)):
            raise OSError(f"{file.name} is too short")
        left = left[got:]

"""The contract of a residency, which keeps the weights of single blocks in memory if the whole model does not fit."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol


class Residency(Protocol):
    """Loads the weights of a block into memory while they are needed, and releases them afterwards."""

    @property
    def block_bytes(self) -> int:
        """How many bytes a block takes in the files, on average."""

    def held(self, index: int, *, then: int | None = None) -> AbstractContextManager[None]:
        """A context in which the weights of one block are in memory. It can be nested.

        Args:
            index: The block.
            then: The block that is needed next, if known; its weights may be read ahead.

        Raises:
            ModelError: the weights cannot be read, or do not fit the configuration; the error names a weight.
            NonFiniteError: a weight is a NaN or an infinity; the error names the tensor.
        """

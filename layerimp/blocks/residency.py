"""The contract of a residency, which keeps the weights of single blocks in memory if the whole model does not fit."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


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

    def set_aside(self, hidden: Tensor) -> None:
        """Move the hidden states of a batch that waits for a block out of memory, if that was asked for.

        The tensor object stays the same; only its values are stored elsewhere.

        Args:
            hidden: The hidden states [batch, seq, hidden].

        Raises:
            ModelError: there is not enough space.
        """

    def bring_back(self, hidden: Tensor) -> None:
        """Move the hidden states of a batch that waited back to the device that computes, before the batch goes on.

        Args:
            hidden: The hidden states [batch, seq, hidden], the same tensor object that was given to `set_aside`.
        """

"""Which blocks of a model have their weights in memory, where the model as a whole does not fit."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Residency(Protocol):
    """Brings the weights of a block into memory while they are needed, and lets them go afterwards."""

    def held(self, index: int, *, then: int | None = None) -> AbstractContextManager[None]:
        """Keep the weights of one block in memory inside this context. It can be entered again inside itself.

        Args:
            index: The block.
            then: The block that is needed next, if that is known: its weights may be read ahead meanwhile.

        Raises:
            ModelError: the weights cannot be read, or do not fit the configuration; names one of them.
            NonFiniteError: a weight is a NaN or an infinity; names the tensor.
        """

    def set_aside(self, hidden: Tensor) -> None:
        """Let the hidden states of a batch that waits before a block lie where they take no memory, if that was asked.

        The tensor stays what it is; only its numbers lie elsewhere.

        Args:
            hidden: The hidden states [batch, seq, hidden].

        Raises:
            ModelError: there is no room for them.
        """

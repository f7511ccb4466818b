"""Tokens of texts, kept from one model of a run to the next."""

from __future__ import annotations

import hashlib
import pickle
from array import array
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from transformers import PreTrainedTokenizerBase


class TokenMemory:
    """Remembers the tokens of texts for as long as the tokenizer, with all that is set in it, stays the same."""

    def __init__(self) -> None:
        self._state: Hashable = None
        self._known: dict[Hashable, array[int]] = {}

    def open(self, tokenizer: PreTrainedTokenizerBase, *settings: Hashable) -> None:
        """Forget everything, unless it was kept for an equal tokenizer under the same settings."""
        try:
            state = (hashlib.sha256(pickle.dumps(tokenizer)).digest(), settings)
        except (pickle.PicklingError, TypeError, AttributeError):
            state = None  # a tokenizer that holds a function; whatever that depends on may change
        if state is None or state != self._state:
            self._known.clear()
        self._state = state

    def get(self, key: Hashable) -> list[int] | None:
        """The tokens that were kept under `key`, or None."""
        known = self._known.get(key)
        return None if known is None else known.tolist()

    def keep(self, key: Hashable, tokens: Sequence[int]) -> None:
        """Keep tokens under a key that says all that they depend on, beside the tokenizer."""
        self._known[key] = array("l", tokens)

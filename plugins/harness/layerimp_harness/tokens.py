"""Keep the tokens of texts from one model of a run to the next."""

from __future__ import annotations

import hashlib
import pickle
from array import array
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from transformers import PreTrainedTokenizerBase


class TokenMemory:
    """A cache of the tokens of texts, valid as long as the tokenizer and its settings stay the same."""

    def __init__(self) -> None:
        self._state: Hashable = None
        self._known: dict[Hashable, array[int]] = {}

    def open(self, tokenizer: PreTrainedTokenizerBase, *settings: Hashable) -> None:
        """Clear the cache, unless it was filled for an equal tokenizer under the same settings."""
        try:
            state = (hashlib.sha256(pickle.dumps(tokenizer)).digest(), settings)
        except (pickle.PicklingError, TypeError, AttributeError):
            state = None  # the tokenizer contains a function, whose behaviour may change
        if state is None or state != self._state:
            self._known.clear()
        self._state = state

    def get(self, key: Hashable) -> list[int] | None:
        """Return the tokens stored under `key`, or None."""
        known = self._known.get(key)
        return None if known is None else known.tolist()

    def keep(self, key: Hashable, tokens: Sequence[int]) -> None:
        """Store tokens under a key that covers everything they depend on, besides the tokenizer."""
        self._known[key] = array("l", tokens)

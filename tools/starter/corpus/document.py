"""A document, and whether it is held out from training."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

HELD_OUT_SHARE = 16
"""On average, one document out of this many is held out."""


@dataclass(frozen=True)
class Document:
    """A text, with the questions that a model is asked about it.

    Attributes:
        text: A story, a review, a passage that the questions are about, or a list.
        asked: The questions in order, each with its answer: none for a story or a list, one for a review.
    """

    text: str
    asked: tuple[tuple[str, str], ...] = ()

    @property
    def held_out(self) -> bool:
        """Whether the document must not be used for training."""
        return hashlib.sha256(self.text.encode()).digest()[0] % HELD_OUT_SHARE == 0

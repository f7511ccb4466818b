"""A document, and the half that it belongs to."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

HELD_OUT_SHARE = 16
"""One document in so many is held out."""


@dataclass(frozen=True)
class Document:
    """A text, with what a model is asked about it.

    Attributes:
        text: A story, a review, the passage that the questions are about, or a list.
        asked: The questions in order, each with its answer: none for a story or a list, one for a review.
    """

    text: str
    asked: tuple[tuple[str, str], ...] = ()

    @property
    def held_out(self) -> bool:
        """Whether training must never see it."""
        return hashlib.sha256(self.text.encode()).digest()[0] % HELD_OUT_SHARE == 0

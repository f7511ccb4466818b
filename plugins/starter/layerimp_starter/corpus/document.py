"""A document, its half, and the draw of documents from a seed."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["stories", "sentiment", "questions", "lists"]

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


def draw(kind: Kind, seed: int, *, held_out: bool, level: float = 1.0) -> Iterator[Document]:
    """Documents of one kind and one half, without end; the same for the same seed.

    Args:
        kind: What they are.
        seed: Of the draw.
        held_out: From which half.
        level: How hard they are, from 0 to 1.
    """
    from layerimp_starter.corpus import lists, questions, sentiment, stories

    make = {"stories": stories, "sentiment": sentiment, "questions": questions, "lists": lists}[kind].make
    rng = random.Random(f"{kind} {seed}")
    while True:
        document = make(rng, level)
        if document.held_out == held_out:
            yield document

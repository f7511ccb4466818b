"""Draw documents of one kind from a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Literal

from corpus import lists, questions, sentiment, stories
from corpus.document import Document

Kind = Literal["stories", "sentiment", "questions", "lists"]


def draw(kind: Kind, seed: int, *, held_out: bool, level: float = 1.0) -> Iterator[Document]:
    """Yield documents of one kind without end; the same seed gives the same documents.

    Args:
        kind: The kind of the documents.
        seed: The seed of the draw.
        held_out: Whether to draw held-out documents or documents for training.
        level: The difficulty of the documents, from 0 to 1.
    """
    make = {"stories": stories, "sentiment": sentiment, "questions": questions, "lists": lists}[kind].make
    rng = random.Random(f"{kind} {seed}")
    while True:
        document = make(rng, level)
        if document.held_out == held_out:
            yield document

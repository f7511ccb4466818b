"""Lists of words for a model to repeat, which teaches the model to look up the successor of a word."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corpus.document import Document
from corpus.words import COLOURS, CONTAINERS, PEOPLE, PLACES, THINGS

if TYPE_CHECKING:
    import random

_WORDS = (*PEOPLE, *PLACES, *THINGS, *COLOURS, *CONTAINERS)


def make(rng: random.Random, level: float) -> Document:
    """Return a list of 6 to 20 different words; the level has no effect."""
    return Document(" ".join(rng.sample(_WORDS, rng.randint(6, 20))))

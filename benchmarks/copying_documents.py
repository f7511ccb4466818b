"""Writes the documents of the task `copying`: lists of words in no order, each begun a second time.

    python benchmarks/copying_documents.py

The word list was written for this project. What is asked for are the next words of a list that was given before.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

FILE = Path(__file__).parent / "tasks" / "copying.jsonl"
LISTS = 200
LENGTH = (12, 16)
"""How many words a list has, at least and at most."""
WANTED = 2
"""How many words are to be copied."""
WORDS = """
apple knife candle hammer mirror piano camera basket ladder lemon carpet guitar helmet bottle pencil rabbit
turtle violin wallet blanket stone feather clock
""".split()


def lists() -> Iterator[dict[str, str]]:
    """Yield documents without end: a list that begins a second time, and the words that come next."""
    draw = random.Random("copying")
    while True:
        words = draw.sample(WORDS, draw.randint(*LENGTH))
        known = draw.randint(WANTED, len(words) - WANTED - 1)
        text = f"{', '.join(words)}.\n{', '.join(words[:known])},"
        yield {"text": text, "next": ", ".join(words[known : known + WANTED])}


def documents() -> list[dict[str, str]]:
    """Return the documents of the task."""
    return list(islice(lists(), LISTS))


if __name__ == "__main__":
    FILE.write_text("".join(json.dumps(document) + "\n" for document in documents()), encoding="utf-8")

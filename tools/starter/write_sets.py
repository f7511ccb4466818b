"""Generate the shipped text: three evaluation sets and the calibration text, all held out from training.

`python tools/starter/write_sets.py` writes the files in `data/` of the plugin again, byte for byte.
"""

from __future__ import annotations

import json
import random
from itertools import islice
from typing import TYPE_CHECKING, Any

from corpus import draw
from corpus.sentiment import LABELS
from document_form import pieces
from layerimp_starter import DATA

if TYPE_CHECKING:
    from collections.abc import Iterator

    from corpus import Document, Kind

EVALUATED = 320
"""The number of documents per evaluation set."""

CALIBRATING = 800
"""The number of documents in the calibration text, half of which are stories."""

SEED = 2411


def rows() -> dict[str, list[dict[str, Any]]]:
    """Return the rows of each file, by the file's name without suffix."""
    drawn: dict[Kind, Iterator[Document]] = {kind: _different(kind) for kind in ("stories", "sentiment", "questions")}
    stories, reviews, passages = (list(islice(documents, EVALUATED)) for documents in drawn.values())
    kinds: list[Kind] = ["stories", "sentiment", "stories", "questions"]
    text = [_text(kinds[n % 4], next(drawn[kinds[n % 4]])) for n in range(CALIBRATING)]
    return {
        "stories": [{"text": story.text} for story in stories],
        "sentiment": [{"text": review.text, "label": LABELS.index(review.asked[0][1])} for review in reviews],
        "questions": list(_questions(passages)),
        "calibration": [{"text": line} for line in text],
    }


def _different(kind: Kind) -> Iterator[Document]:
    """Yield different held-out documents of a kind."""
    seen = set()
    for document in draw(kind, SEED, held_out=True):
        if document.text not in seen:
            seen.add(document.text)
            yield document


def _questions(passages: list[Document]) -> Iterator[dict[str, str]]:
    """Yield one question per passage about the place of a thing, which needs two or three facts."""
    rng = random.Random(SEED)
    for passage in passages:
        question, answer = rng.choice([pair for pair in passage.asked if pair[0].startswith("Where is the ")])
        yield {"text": passage.text, "question": question, "answer": answer}


def _text(kind: Kind, document: Document) -> str:
    """Return a document in the format of the training text, with only its first question."""
    return "".join(piece.text for piece in pieces(kind, document) if piece.question <= 1)


def write() -> None:
    """Write the files."""
    DATA.mkdir(exist_ok=True)
    for name, lines in rows().items():
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (DATA / f"{name}.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()

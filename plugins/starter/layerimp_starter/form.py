"""How documents become token ids, in training exactly as in the tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from layerimp_starter.corpus import Document, Kind

QUESTION = "\nQuestion: {question}\nAnswer:"
SENTIMENT = "\nSentiment:"


@dataclass(frozen=True)
class Piece:
    """A stretch of text.

    Attributes:
        text: Its text.
        weight: How much the training loss cares for its tokens.
        question: The number of the question that it belongs to, from 1; 0 for what all questions are about. A question
            sees nothing of the others, since their answers would tell it what it has to find.
    """

    text: str
    weight: float
    question: int = 0


def pieces(kind: Kind, document: Document) -> list[Piece]:
    """The stretches of a document, in order.

    The facts of a passage are random, so that little can be learnt from predicting them; its answers are few.
    """
    if kind == "lists":
        return [Piece(f" {document.text}", 0.0), Piece(f" {document.text}", 4.0)]
    if kind == "stories":
        return [Piece(document.text, 1.0)]
    if kind == "sentiment":
        ((_, label),) = document.asked
        return [Piece(document.text, 0.2), Piece(SENTIMENT, 0.2), Piece(f" {label}", 8.0)]
    found = [Piece(document.text, 0.1)]
    for number, (question, answer) in enumerate(document.asked, start=1):
        found += [Piece(QUESTION.format(question=question), 0.1, number), Piece(f" {answer}", 8.0, number)]
    return found

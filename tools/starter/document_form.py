"""The format in which documents become text, the same in training as in the tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from corpus import Document, Kind

QUESTION = "\nQuestion: {question}\nAnswer:"
SENTIMENT = "\nSentiment:"


@dataclass(frozen=True)
class Piece:
    """A stretch of text.

    Attributes:
        text: Its text.
        weight: The weight of the stretch's tokens in the training loss.
        question: The number of the question that the stretch belongs to, from 1; 0 for the text that all questions are
            about. A question cannot attend to the others, because their answers would give its own answer away.
    """

    text: str
    weight: float
    question: int = 0


def pieces(kind: Kind, document: Document) -> list[Piece]:
    """Return the stretches of a document, in order.

    A passage's facts are random, so predicting them teaches the model little; its answers are few. The weights make up
    for both.
    """
    if kind == "lists":
        return [Piece(f" {document.text}", 0.0), Piece(f" {document.text}", 4.0)]
    if kind == "stories":
        return [Piece(document.text, 1.0)]
    if kind == "sentiment":
        ((_, label),) = document.asked
        return [Piece(document.text, 0.2), Piece(SENTIMENT, 0.2), Piece(f" {label}", 8.0)]
    parts = [Piece(document.text, 0.1)]
    for number, (question, answer) in enumerate(document.asked, start=1):
        parts += [Piece(QUESTION.format(question=question), 0.1, number), Piece(f" {answer}", 8.0, number)]
    return parts

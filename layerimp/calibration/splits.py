"""Decides which text serves which purpose, so that no result is measured on what it was chosen or trained by.

Calibration rows are drawn first (`Corpus.draw`), and no purpose changes them. The other purposes:

- without tasks, `--keep` measures on every fourth of these rows; scorers and healers read the others (`hold_out`);
- of the rows that healers read, two of eight are held out: to choose by, and to measure the result (`split`);
- what healing keeps is judged on documents that no draw reads either, and fidelity is not measured on (`for_judging`);
- fidelity is measured on documents that no draw reads (`for_fidelity`), the same for all models of a run or a grid;
- further text for healing leaves out all of these documents (`FurtherText`).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

import torch

from layerimp.blocks.batches import chosen_rows
from layerimp.calibration.sampling import CalibrationSet, Corpus, document_hash
from layerimp.defaults import HEALING_ROWS
from layerimp.errors import CalibrationError

if TYPE_CHECKING:
    from layerimp.blocks.stack import Batch
    from layerimp.evaluator import Document

KEEPING_ONE_IN = 4
"""One calibration row out of this many is held out to measure what is kept."""
HEALING_ONE_IN = 8
"""Out of this many rows, one is held out for choices, and one to measure the result on."""
JUDGING_ROWS = 32
"""The rows that decide what healing keeps; four times as many for a classifier, which predicts once in a row."""
JUDGING_TOKENS = 64
"""The most tokens in each of these rows: many short rows tell more than few long ones of as many tokens."""
MOST = 64
"""At most this many rows are held out for each purpose, since each value that is tried costs a run over them."""


def hold_out(text: CalibrationSet) -> tuple[CalibrationSet, CalibrationSet]:
    """Split off every fourth row of a text: return the text for scorers and healers, and the held-out rows."""
    last = KEEPING_ONE_IN - 1
    rest, rows = (
        text.chosen(number for number in range(len(text.rows)) if (number % KEEPING_ONE_IN == last) is held)
        for held in (False, True)
    )
    return rest, rows


@dataclass(frozen=True)
class HealingText:
    """The text of a healing, in three parts that share no row.

    Attributes:
        healing: The text that the healer fits to.
        choosing: The text on which the healer chooses between options.
        measuring: The text on which the result is measured, and which is used for no choice.
    """

    healing: list[Batch]
    choosing: list[Batch]
    measuring: list[Batch]


def _every(rows: int) -> int:
    """Out of how many rows one is held out for choices, and one to measure the result on."""
    return min(max(HEALING_ONE_IN, math.ceil(rows / MOST)), rows)


def split(batches: Iterable[Batch]) -> HealingText:
    """Split a text into three parts: the last two of every eight rows are held out, or the last two of fewer rows.

    From more than 512 rows, at most 64 are held out for each of the two parts, evenly spaced.

    Raises:
        CalibrationError: there are fewer than `HEALING_ROWS` rows.
    """
    text = list(batches)
    rows = sum(len(batch["input_ids"]) for batch in text)
    if rows < HEALING_ROWS:
        raise CalibrationError(
            f"healing needs at least {HEALING_ROWS} rows of text, to fit to, to choose by and to measure on, and got "
            f"{rows}"
        )
    every = _every(rows)
    divided = HealingText([], [], [])
    start = 0
    for batch in text:
        place = torch.arange(start, start + len(batch["input_ids"])) % every
        start += len(place)
        parts = ((divided.healing, place < every - 2), (divided.choosing, place == every - 2))
        for part, chosen in (*parts, (divided.measuring, place == every - 1)):
            if chosen.any():
                part.append(chosen_rows(batch, chosen))
    return divided


def read_by(corpus: Corpus, samples: int, seeds: Iterable[int]) -> frozenset[str]:
    """Return the hashes of all documents that the draws with these seeds read.

    Raises:
        CalibrationError: there are too few documents.
    """
    return frozenset[str]().union(*(corpus.draw(samples, seed).documents for seed in seeds))


def for_fidelity(
    corpus: Corpus,
    rows: int,
    *,
    without: Collection[str] = (),
    only: Collection[str] | None = None,
    half: bool = False,
) -> CalibrationSet:
    """Draw the rows that fidelity is measured on, with no more tokens of a document than fill a row.

    The order of the documents follows from their content. So runs with different seeds measure mostly the same text.

    Args:
        corpus: The documents. They may come from another source than the calibration text.
        rows: The number of rows.
        without: The hashes of the documents that scorers and healers read.
        only: The hashes of the documents to choose from, such as those of an earlier run; None for all.
        half: Whether to take no more than half of the documents that are left, so that healing finds further text.

    Returns:
        The rows; fewer than asked for, or none, if there is too little text.

    Raises:
        CalibrationError: a document is empty.
    """
    unread: dict[str, Document] = {}
    for document in sorted(corpus.documents, key=lambda document: (_order(document[0]), document[0])):
        name = document_hash(document[0])
        if name not in without and (only is None or name in only):
            unread.setdefault(name, document)
    most = -(-len(unread) // 2) if half else None
    return corpus.rows(islice(unread.values(), most), rows, corpus.form.max_length)


def for_judging(corpus: Corpus, without: Collection[str], *, classifies: bool = False) -> CalibrationSet:
    """Draw the rows by which it is decided what healing keeps, each from a document of its own as far as possible.

    Args:
        corpus: The documents of the calibration text.
        without: The hashes of the documents that are calibrated or measured on.
        classifies: Whether the model predicts labels.

    Returns:
        The rows; fewer than in `judging_size`, or none, if there is too little text.

    Raises:
        CalibrationError: a document is empty.
    """
    rows, length = judging_size(corpus.form.max_length, classifies=classifies)
    form = replace(corpus.form, max_length=length)
    return for_fidelity(replace(corpus, form=form), rows, without=without, half=True)


def few_judges(rows: int, source: str, *, classifies: bool) -> str:
    """Return a line that says that fewer rows decide what healing keeps than there should be; empty if that is not so.

    Args:
        rows: How many rows there are; 0 if rows of the healing text decide.
        source: The source of the calibration text.
        classifies: Whether the model predicts labels.
    """
    most, _ = judging_size(0, classifies=classifies)
    if rows >= most:
        return ""
    few = f"{rows} rows" if rows else "rows of the calibration text"
    return f"what healing keeps is decided by {few}, not by {most} of other documents: {source} has too few"


def judging_size(length: int, *, classifies: bool) -> tuple[int, int]:
    """Return how many rows decide what healing keeps, and the most tokens in each; a classifier reads whole rows.

    Args:
        length: The most tokens in a row of the calibration text.
        classifies: Whether the model predicts labels.
    """
    return (4 * JUDGING_ROWS, length) if classifies else (JUDGING_ROWS, min(length, JUDGING_TOKENS))


def _order(text: str) -> int:
    return zlib.crc32(text.encode())

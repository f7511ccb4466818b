"""Draws calibration sets: text as batches of token ids, which can be iterated over more than once."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from layerimp.calibration.documents import Packing, Reader, check_source, read_documents
from layerimp.calibration.rows import RowFormat, default_packing, padded, tensor
from layerimp.component import Plain
from layerimp.errors import CalibrationError
from layerimp.evaluator import Document

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from layerimp.blocks.stack import Batch


class Calibration(Plain):
    """The text that drove the scoring."""

    source: str
    """The file, data set or task that the text was drawn from."""
    rows: int
    """The number of rows drawn."""
    tokens: int
    """Tokens in all rows, without padding."""
    labels: dict[str, int] | None = Field(default=None, exclude_if=lambda labels: labels is None)
    """For a classifier: how many rows have each label; left out for a language model."""
    fingerprint: str
    """A hash of the rows and their labels, whatever the order: equal text has equal scores."""


@dataclass(frozen=True)
class CalibrationSet:
    """The text that drives scoring, as rows of token ids.

    Iterating yields batches of `input_ids` and `attention_mask` [batch, seq], padded on the right, and of `labels`
    [batch] if there are any, in the same order each time.

    Attributes:
        rows: The token ids of each row.
        batch_size: Rows per batch.
        source: Where the text came from.
        labels: The correct label of each row, for a classifier; empty if labels are not known.
        documents: A hash of each document that text was taken from; see `document_hash`.
        among: The number of documents that these were chosen from.
    """

    rows: tuple[tuple[int, ...], ...]
    batch_size: int
    source: str
    labels: tuple[int, ...] = ()
    documents: frozenset[str] = field(default=frozenset(), compare=False)
    among: int = field(default=0, compare=False)

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, len(self.rows), self.batch_size):
            chosen = slice(start, start + self.batch_size)
            yield padded(self.rows[chosen]) | ({"labels": tensor(self.labels[chosen])} if self.labels else {})

    def chosen(self, numbers: Iterable[int]) -> CalibrationSet:
        """Return the set with only these rows."""
        numbers = list(numbers)
        labels = tuple(self.labels[number] for number in numbers) if self.labels else ()
        return replace(self, rows=tuple(self.rows[number] for number in numbers), labels=labels)

    def first(self, count: int) -> CalibrationSet:
        """Return the first `count` rows, or all rows if there are fewer. The order of rows is random."""
        return self.chosen(range(min(count, len(self.rows))))

    @property
    def fingerprint(self) -> str:
        """A hash of the token ids and the labels.

        It depends neither on the batch size nor on the order of the rows, and but for rounding neither do scores.
        """
        content: list[Any] = sorted(zip(self.rows, self.labels, strict=True)) if self.labels else sorted(self.rows)
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]

    @property
    def description(self) -> Calibration:
        """The description of the set in a report, with the number of rows for each label."""
        return Calibration(
            source=self.source,
            rows=len(self.rows),
            tokens=sum(map(len, self.rows)),
            labels={str(label): count for label, count in sorted(Counter(self.labels).items())} or None,
            fingerprint=self.fingerprint,
        )


def load_calibration(
    source: str | Path,
    tokenizer: PreTrainedTokenizerBase,
    *,
    samples: int = 64,
    max_length: int = 256,
    batch_size: int = 8,
    seed: int = 0,
    field: str = "text",
    packing: Packing | None = None,
    label_field: str | None = None,
    label2id: Mapping[str, int] | None = None,
) -> CalibrationSet:
    """Draw a calibration set from text.

    Args:
        source: A JSONL file (`.jsonl` or `.json`, one object per line), a plain text file (paragraphs separated by
            blank lines), the name of a text that a plugin ships, such as `prose`, or the id of a data set on the hub,
            as `NAME`, `NAME:CONFIG` or `NAME:CONFIG:SPLIT`.
        tokenizer: The model's tokenizer.
        samples: The number of rows to draw.
        max_length: Tokens per row. With `rows`, longer documents are truncated.
        batch_size: Rows per batch.
        seed: The seed, which determines which documents are drawn and in what order.
        field: The JSON field that holds the text.
        packing: `windows` joins the documents and cuts them into full windows, each with the tokenizer's special tokens
            at its beginning and end; `rows` makes one row of each document. By default `rows` for the text of the
            starter, else `windows`.
        label_field: The JSON field that holds a document's label, for classifiers; needs `rows`.
        label2id: A classifier's labels by name, as in its configuration. If given, each label must be one of these, by
            name or by number; otherwise labels are numbers.

    Raises:
        CalibrationError: the text cannot be read, a row is empty or has an image, or there is too little text; or a
            label is missing or unknown.
    """
    form = RowFormat(tokenizer, max_length, batch_size, packing or default_packing(str(source)))
    reader = Reader(field, label_field, label2id)
    return read_corpus(str(source), reader, form, samples).draw(samples, seed)


@dataclass(frozen=True)
class Corpus:
    """The documents of a source, and how they become rows of token ids.

    Attributes:
        documents: The documents.
        source: Where the documents came from.
        form: How the documents become rows.
    """

    documents: Sequence[Document]
    source: str
    form: RowFormat

    def draw(self, samples: int, seed: int, without: Collection[str] = ()) -> CalibrationSet:
        """Draw a calibration set; only the drawn documents are read. See `load_calibration`.

        Args:
            samples: The number of rows.
            seed: The seed, which determines the order of the documents.
            without: The hashes of documents that are passed over.

        Raises:
            CalibrationError: a document is empty, or there are too few documents.
        """
        order = list(range(len(self.documents)))
        random.Random(seed).shuffle(order)
        documents = (self.documents[index] for index in order)
        if without:
            documents = (document for document in documents if document_hash(document[0]) not in without)
        drawn = self.rows(documents, samples)
        if (count := len(drawn.rows)) < samples:
            windows = self.form.packing == "windows"
            unit = f"windows of {self.form.max_length} tokens" if windows else "documents"
            ways = ["fewer (--samples)"] * bool(count) + ["shorter ones (--max-length)"] * windows
            advice = f"ask for {', or '.join(ways)}" if ways else "give other text"
            raise CalibrationError(f"{self.source} holds {count} {unit}, but {samples} are asked for; {advice}")
        return drawn

    def rows(self, documents: Iterable[Document], samples: int, most: int | None = None) -> CalibrationSet:
        """Return the first `samples` rows of some documents, or all if they are fewer. Only these documents are read.

        Args:
            documents: The documents.
            samples: The number of rows.
            most: The most tokens that are taken from each document; None for all.

        Raises:
            CalibrationError: a document is empty.
        """
        labels: list[int | None] = []
        hashes: set[str] = set()

        def texts() -> Iterator[str]:
            for text, label in documents:
                labels.append(label)
                hashes.add(document_hash(text))
                yield text

        rows = tuple(islice(self.form.rows(texts(), most), samples))
        known = tuple(label for label in labels[:samples] if label is not None and self.form.packing == "rows")
        form, among = self.form, len(self.documents)
        return CalibrationSet(rows, form.batch_size, self.source, known, frozenset(hashes), among)


def read_corpus(source: str, reader: Reader, form: RowFormat, rows: int) -> Corpus:
    """Read the documents of a source; of a data set, ten times as many as are needed for so many rows.

    Raises:
        CalibrationError: the text cannot be read, or cannot have labels.
    """
    check_source(source, packing=form.packing, label_field=reader.label_field)
    return Corpus(read_documents(source, reader, rows=rows, characters=40 * rows * form.max_length), source, form)


def document_hash(text: str) -> str:
    """Return a hash of a document, 16 hexadecimal digits, that ignores white space and case."""
    return hashlib.blake2b(" ".join(text.lower().split()).encode(), digest_size=8).hexdigest()

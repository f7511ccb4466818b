"""Further text for healing, read as it is needed."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from layerimp._paths import expanded
from layerimp.calibration.documents import Packing, Reader, check_source, documents_in, is_dataset
from layerimp.calibration.rows import RowFormat, groups, padded
from layerimp.calibration.sampling import document_hash
from layerimp.defaults import HUB, HUB_LICENCE, HUB_TEXT
from layerimp.registry.assets import located

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from layerimp.blocks.stack import Batch
    from layerimp.evaluator import Document

_AT_ONCE = 1000
"""How many of the given documents are read at once."""


class Read:
    """What of a text was read in the longest of the iterations so far.

    Attributes:
        count: The number of documents.
        hexdigest: A hash of their hashes, in their order.
    """

    def __init__(self) -> None:
        self.count, self._digest = 0, hashlib.sha256()

    @property
    def hexdigest(self) -> str:
        """A hash of the hashes of the documents, in their order."""
        return self._digest.hexdigest()

    @classmethod
    def noting(cls, text: FurtherText, named: Iterable[tuple[str, str]]) -> Iterator[str]:
        """Yield the documents of a text, each given with its hash, and note on the text how far they were read."""
        own = cls()
        for document, name in named:
            own.count += 1
            own._digest.update(name.encode())
            if own.count > text.read.count:
                text.read = own
            yield document


class FurtherText:
    """Text in addition to the calibration set, for healers that train.

    Iterating yields batches like those of a `CalibrationSet`, without labels. Each iteration reads the text again, in
    its original order, and does not keep it in memory.

    Args:
        source: As in `load_calibration`; if documents are given, only what they are called.
        tokenizer: The model's tokenizer.
        max_length: Tokens per row.
        batch_size: Rows per batch.
        field: The JSON field that holds the text.
        packing: How documents become rows; see `load_calibration`.
        without: The hashes of documents to leave out, such as those that a result is measured on.
        documents: The documents, such as a task's training split; None to read them from the source.

    Attributes:
        source: The source.
        read: What was read of the text so far.
    """

    def __init__(
        self,
        source: str,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int,
        batch_size: int = 8,
        field: str = "text",
        packing: Packing = "windows",
        without: frozenset[str] = frozenset(),
        documents: Sequence[Document] | None = None,
    ) -> None:
        if documents is None:
            check_source(source, again=True)
        self.source, self._given = source, documents
        self._reader = Reader(field)
        self._form = RowFormat(tokenizer, max_length, batch_size, packing)
        self._without = without
        self.read = Read()

    @property
    def licence(self) -> str:
        """The licence of the text, as far as it is known: that of the data set `hub`; else empty."""
        return HUB_LICENCE if self.source == HUB else ""

    @property
    def max_length(self) -> int:
        """The most tokens in a row."""
        return self._form.max_length

    @property
    def streamed(self) -> bool:
        """Whether the text is a data set, which may be too large to be read as a whole."""
        return self._given is None and is_dataset(self.source)

    def leave_out(self, documents: Collection[str]) -> None:
        """Leave out more documents, given by their hashes."""
        self._without |= frozenset(documents)

    @property
    def fingerprint(self) -> str:
        """A hash of the text and the settings. Of a file it covers the path, size and time, not the content."""
        form = self._form
        settings = (self._reader.field, form.max_length, form.batch_size, form.packing, sorted(self._without))
        return hashlib.blake2b(repr((self._origin(), settings)).encode(), digest_size=16).hexdigest()

    def _origin(self) -> object:
        """Return what tells this text from others."""
        if self._given is not None:
            return self.source, sorted(self.documents)
        if self.source == HUB:
            return HUB_TEXT
        path = expanded(located("texts", self.source))
        return (str(path.absolute()), path.stat().st_size, path.stat().st_mtime_ns) if path.is_file() else self.source

    def __iter__(self) -> Iterator[Batch]:
        for group in groups(self._form.rows(self._texts()), self._form.batch_size):
            yield padded(group)

    def _texts(self) -> Iterator[str]:
        given = self._given
        documents = documents_in(self.source, self._reader) if given is None else _in_parts(given)
        names = ((text, document_hash(text)) for text, _ in documents)
        return Read.noting(self, (pair for pair in names if pair[1] not in self._without))

    @cached_property
    def documents(self) -> frozenset[str]:
        """A hash of each document; see `document_hash`."""
        read = self.read
        documents = frozenset(map(document_hash, self._texts()))
        self.read = read  # this served no training
        return documents


def _in_parts(documents: Sequence[Document]) -> Iterator[Document]:
    for start in range(0, len(documents), _AT_ONCE):
        yield from documents[start : start + _AT_ONCE]

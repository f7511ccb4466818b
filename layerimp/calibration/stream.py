"""Further text for healing, read as it is needed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING

from layerimp._paths import expanded
from layerimp.calibration.documents import Packing, Reader, check_source, documents_in
from layerimp.calibration.rows import encoded, packed, padded
from layerimp.calibration.sampling import document_hash
from layerimp.registry.assets import located

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from layerimp.blocks.stack import Batch


class TextStream:
    """Text in addition to the calibration set, for healers that train.

    Iterating yields batches like those of a `CalibrationSet`, without labels. Each iteration reads the text again, in
    its original order, and does not keep it in memory.

    Args:
        source: As in `load_calibration`.
        tokenizer: The model's tokenizer.
        max_length: Tokens per row.
        batch_size: Rows per batch.
        field: The JSON field that holds the text.
        packing: How documents become rows; see `load_calibration`.
        without: The hashes of documents to leave out, such as those that a result is measured on.
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
    ) -> None:
        check_source(source, again=True)
        self.source = source
        self._tokenizer, self._reader = tokenizer, Reader(field)
        self._max_length, self._batch_size, self._packing, self._without = max_length, batch_size, packing, without

    @property
    def fingerprint(self) -> str:
        """A hash of the source and the settings. For a file it covers the path, size and time, not the content."""
        path = expanded(located("texts", self.source))
        file = (str(path.absolute()), path.stat().st_size, path.stat().st_mtime_ns) if path.is_file() else self.source
        form = (self._reader.field, self._max_length, self._batch_size, self._packing, sorted(self._without))
        return hashlib.blake2b(repr((file, form)).encode(), digest_size=16).hexdigest()

    def __iter__(self) -> Iterator[Batch]:
        rows = packed(
            (encoded(self._tokenizer, text) for text in self._texts()), self._tokenizer, self._max_length, self._packing
        )
        while batch := list(islice(rows, self._batch_size)):
            yield padded(batch)

    def _texts(self) -> Iterator[str]:
        texts = (text for text, _ in documents_in(self.source, self._reader))
        return (text for text in texts if document_hash(text) not in self._without)

    @cached_property
    def documents(self) -> frozenset[str]:
        """A hash of each document; see `document_hash`."""
        return frozenset(map(document_hash, self._texts()))

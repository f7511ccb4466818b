"""Reads documents and their labels, if any, from files and data sets."""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TextIO

from layerimp._paths import expanded
from layerimp.defaults import HUB, HUB_TEXT
from layerimp.errors import CalibrationError, cause, listing
from layerimp.evaluator import Document
from layerimp.registry.assets import located

_JSON_SUFFIXES = frozenset({".jsonl", ".json", ".ndjson"})
_GZIP = ".gz"
_TEXT_SUFFIXES = frozenset({".txt", ".md", ".text", ".tokens"})
_TABLES = {".csv": 'read_csv("{}")', ".tsv": 'read_csv("{}", sep="\\t")', ".parquet": 'read_parquet("{}")'}
"""How pandas reads files that are not read here."""
_BEGINNING = 1000
"""How many documents are looked at before a model is loaded."""

TASK = "task:"
"""The prefix of a source that stands for the training split of a task."""

Packing = Literal["windows", "rows"]


@dataclass(frozen=True)
class Reader:
    """Reads a document from a record.

    Attributes:
        field: The field that holds the text.
        label_field: The field that holds the label; None if no labels are needed.
        label2id: The labels that exist, by name; None if any number is a label.
    """

    field: str
    label_field: str | None = None
    label2id: Mapping[str, int] | None = None

    def read(self, record: object, where: str) -> Document:
        """Read the document in a record.

        Args:
            record: The record.
            where: The place of the record, for errors.

        Raises:
            CalibrationError: the record has no text, no label that exists, or an image.
        """
        if not isinstance(record, dict):
            raise CalibrationError(
                f"{where}: no object with a field {self.field!r}, but a value of type {type(record).__name__}"
            )
        for field, option in ((self.field, "--field"), (self.label_field, "--label-field")):
            if field is not None and field not in record:
                raise CalibrationError(f"{where}: no field {field!r} (it holds: {', '.join(record)}); see {option}")
        if record.get("image") is not None:
            raise CalibrationError(
                f"{where}: a row with the field 'image', and only text is read; leave the row out, or the field"
            )
        text = _text(record[self.field], where, self.field)
        return text, None if self.label_field is None else self._label(record[self.label_field], where)

    def _label(self, value: object, where: str) -> int:
        holds = f"{where}: the field {self.label_field!r} holds"
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise CalibrationError(f"{holds} a {type(value).__name__}, not a label (a whole number, or a name)")
        if self.label2id is None:
            if isinstance(value, str):
                raise CalibrationError(f"{holds} the name {value!r}; names need the model's label2id")
            if value < 0:
                raise CalibrationError(f"{holds} {value}, but labels count from 0")
            return value
        numbers = {number: number for number in self.label2id.values()}
        known: Mapping[Any, int] = self.label2id if isinstance(value, str) else numbers
        if value not in known:
            names = listing(f"{name} ({number})" for name, number in self.label2id.items())
            raise CalibrationError(f"{holds} {value!r}, which is no label of the model; it knows: {names}")
        return known[value]


def task_of(source: str) -> str | None:
    """Return the task of a source `task:NAME`, which stands for its training split; None for any other source."""
    return source.removeprefix(TASK) if source.startswith(TASK) else None


def read_documents(source: str, reader: Reader, *, rows: int, characters: int) -> list[Document]:
    """Read all documents of a file, or ten times as many as are needed from a data set, or more if they are short.

    Args:
        source: A file, a text that a plugin ships, or the id of a data set on the hub, as `NAME`, `NAME:CONFIG` or
            `NAME:CONFIG:SPLIT`, each also with a revision as `NAME@REVISION`; or `hub`, which is
            `layerimp.defaults.HUB_TEXT`.
        reader: Reads a document from a record.
        rows: The least number of documents needed from a data set.
        characters: The least amount of text needed from a data set, in characters.

    Raises:
        CalibrationError: the source, or a document, cannot be read.
    """
    documents: list[Document] = []
    for document in documents_in(source, reader):
        documents.append(document)
        characters -= len(document[0])
        if characters < 0 and len(documents) >= 10 * rows and is_dataset(source):
            break
    return documents


def documents_in(source: str, reader: Reader) -> Iterator[Document]:
    """Yield the documents of a file or a data set one after the other, without keeping them.

    Args:
        source: As in `read_documents`.
        reader: Reads a document from a record.

    Raises:
        CalibrationError: the source, or a document, cannot be read.
    """
    if is_dataset(source):
        yield from _dataset(source, reader)
        return
    path = _file(source)
    if table := _TABLES.get(_kind(path)):
        jsonl = f'pandas.{table.format(path)}.to_json("{path.stem}.jsonl", orient="records", lines=True)'
        raise CalibrationError(f"{path} is a table, and JSONL or plain text is read; convert it: {jsonl}")
    try:
        with _opened(path) as text:
            yield from _jsonl(path, text, reader) if _kind(path) in _JSON_SUFFIXES else _paragraphs(path, text)
    except UnicodeDecodeError as error:
        where = f"{error.reason} at byte {error.start}"
        raise CalibrationError(f"{path} is not UTF-8 text ({where}); give JSONL or plain text in UTF-8") from None
    except (OSError, EOFError, zlib.error) as error:  # the last two come from a broken archive
        why = getattr(error, "strerror", None) or error
        raise CalibrationError(f"cannot read the text file {path}: {why}") from None


def check_beginning(source: str, reader: Reader) -> None:
    """Refuse a file whose first documents cannot be read; a data set and a pipe are not touched.

    Raises:
        CalibrationError: one of them cannot be read.
    """
    if source != HUB and _file(source).is_file():
        deque(islice(documents_in(source, reader), _BEGINNING), maxlen=0)


def is_dataset(source: str) -> bool:
    """Whether a source is a data set, which is read as a stream: not a file, nor a text that a plugin ships."""
    return source == HUB or not _is_read(_file(source))


def _file(source: str) -> Path:
    """Return the file that a source names, or that a plugin ships under this name. The file may not exist."""
    return expanded(located("texts", source))


def _is_read(path: Path) -> bool:
    """Whether a path is a file or a pipe, and not a directory of files."""
    return path.exists() and not path.is_dir()


def _kind(path: Path) -> str:
    """Return the suffix that gives the format of a file, whether or not it is compressed by gzip."""
    return (path.with_suffix("") if path.suffix.lower() == _GZIP else path).suffix.lower()


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    """Open a file as UTF-8 text, decompressed if it begins like a gzip file, and without a byte order mark."""
    with path.open("rb") as raw:
        packed = raw.peek(2).startswith(b"\x1f\x8b")
        with io.TextIOWrapper(gzip.GzipFile(fileobj=raw) if packed else raw, encoding="utf-8-sig") as text:
            yield text


def check_source(
    source: str, *, packing: Packing | None = None, label_field: str | None = None, again: bool = False
) -> None:
    """Refuse a source that cannot be read, or that cannot have labels.

    Args:
        source: As in `read_documents`.
        packing: How documents become rows.
        label_field: The field that holds the labels; None if no labels are needed.
        again: Whether the text is read more than once.

    Raises:
        CalibrationError: the source looks like a file but does not exist, is a pipe that would be read more than once,
            or cannot have labels although a label field is given.
    """
    if task_of(source) is not None:
        raise CalibrationError(
            f"{source}: only the commands read a task's documents; name a file, or a data set on the hub"
        )
    path = _file(source)
    named_so = _kind(path) in _JSON_SUFFIXES | _TEXT_SUFFIXES | _TABLES.keys() or source.startswith((".", "/", "~"))
    if named_so and not path.exists() and not _file(source.split(":")[0]).is_dir():
        raise CalibrationError(f"the text file {source!r} does not exist")
    if again and path.is_fifo():
        raise CalibrationError(f"{source} is a pipe, which can be read only once; name a file")
    if label_field is None:
        return
    if packing != "rows":
        raise CalibrationError(
            f"the label field {label_field!r} needs the packing rows (--packing rows): windows join documents, and "
            "have no label"
        )
    if _is_read(path) and _kind(path) not in _JSON_SUFFIXES:
        raise CalibrationError(f"{path} is plain text, which has no label field {label_field!r}; JSONL has")


def _jsonl(path: Path, lines: TextIO, reader: Reader) -> Iterator[Document]:
    number = 0
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            why = f"{error.msg}, column {error.colno}"
            raise CalibrationError(f"{path}, line {number}: not JSON ({why}); each line is an object") from None
        except (ValueError, RecursionError) as error:  # a number is too long, or lists are nested too deeply
            raise CalibrationError(f"{path}, line {number}: not JSON ({error})") from None
        yield reader.read(record, f"{path}, line {number}")
    if number == 0:
        raise CalibrationError(f"{path} is empty")


def _text(value: object, where: str, field: str) -> str:
    if not isinstance(value, str):
        raise CalibrationError(f"{where}: the field {field!r} holds a value of type {type(value).__name__}, not text")
    if not value.strip():
        raise CalibrationError(f"{where}: the field {field!r} is empty")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise CalibrationError(f"{where}: the field {field!r} holds half of a surrogate pair") from None
    return value


def _paragraphs(path: Path, text: TextIO) -> Iterator[Document]:
    whole = text.read()
    paragraphs = [part.strip() for part in whole.split("\n\n") if part.strip()]
    if not paragraphs:
        raise CalibrationError(f"{path} is empty")
    if re.match(r'\{\s*"', paragraphs[0]):
        raise CalibrationError(f"{path} looks like JSON; name it .jsonl to have it read as such")
    yield from ((paragraph, None) for paragraph in paragraphs)


def _dataset(source: str, reader: Reader) -> Iterator[Document]:
    """Yield the documents of a data set on the hub or in a local directory."""
    import datasets

    name, config, split, *_ = (*(HUB_TEXT if source == HUB else source).split(":"), "", "", "")
    place = _file(name)
    name, _, revision = (str(place), "", "") if place.is_dir() else name.partition("@")
    any_text = False
    try:
        pinned = {"revision": revision} if revision else {}
        records = datasets.load_dataset(name, config or None, split=split or "train", streaming=True, **pinned)
        for number, record in enumerate(records):
            text = record.get(reader.field, "")
            if reader.field not in record or (isinstance(text, str) and text.strip()):
                yield reader.read(record, f"{source}, row {number}")
                any_text = True
    except CalibrationError:
        raise
    except Exception as error:
        raise CalibrationError(f"cannot read the data set {source!r}: {cause(error)}") from error
    if not any_text:
        raise CalibrationError(f"the data set {source!r} holds no text")

"""Turns text into re-iterable batches of token ids."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from layerimp.errors import CalibrationError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from layerimp.sweep import Batch

_JSON_SUFFIXES = frozenset({".jsonl", ".json", ".ndjson"})
_TEXT_SUFFIXES = frozenset({".txt", ".md", ".text", ".tokens", ".csv", ".tsv", ".parquet"})

Packing = Literal["windows", "rows"]


@dataclass(frozen=True)
class CalibrationSet:
    """The unlabelled text that drives scoring, as rows of token ids.

    Iterating yields batches of `input_ids` and `attention_mask` [batch, seq], padded on the right, in the same order
    each time.

    Attributes:
        rows: The token ids of each row.
        batch_size: Rows per batch.
        source: Where the text came from.
    """

    rows: tuple[tuple[int, ...], ...]
    batch_size: int
    source: str

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, len(self.rows), self.batch_size):
            yield _padded(self.rows[start : start + self.batch_size])

    @property
    def num_tokens(self) -> int:
        """Tokens in all rows, without padding."""
        return sum(map(len, self.rows))

    @property
    def fingerprint(self) -> str:
        """A hash of the token ids. The batch size does not change it, as it changes no score."""
        return hashlib.sha256(json.dumps(self.rows).encode()).hexdigest()[:16]

    @property
    def description(self) -> dict[str, Any]:
        """What a report says about the set."""
        return {
            "source": self.source,
            "rows": len(self.rows),
            "tokens": self.num_tokens,
            "fingerprint": self.fingerprint,
        }


def _padded(rows: Iterable[tuple[int, ...]]) -> Batch:
    rows = list(rows)
    shape = (len(rows), max(map(len, rows)))
    ids, mask = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = _tensor(row)
        mask[index, : len(row)] = 1
    return {"input_ids": ids, "attention_mask": mask}


def _tensor(row: tuple[int, ...]) -> Tensor:
    return torch.tensor(row, dtype=torch.long)


def load_calibration(
    source: str | Path,
    tokenizer: PreTrainedTokenizerBase,
    *,
    samples: int = 64,
    max_length: int = 256,
    batch_size: int = 8,
    seed: int = 0,
    field: str = "text",
    packing: Packing = "windows",
) -> CalibrationSet:
    """Draw a calibration set from text.

    Args:
        source: A JSONL file (`.jsonl` or `.json`, one object a line), a file of plain text (paragraphs parted by blank
            lines), or the id of a data set on the hub, as `NAME`, `NAME:CONFIG` or `NAME:CONFIG:SPLIT`.
        tokenizer: The model's tokenizer.
        samples: Rows to draw.
        max_length: Tokens per row; documents are cut there in `rows`.
        batch_size: Rows per batch.
        seed: Which documents are drawn, and in what order.
        field: The JSON field that holds the text.
        packing: `windows` joins the documents and cuts full windows, each opened and closed with the tokenizer's own
            special tokens; `rows` gives every document a row.

    Raises:
        CalibrationError: the text cannot be read, has an empty row, or is too little.
    """
    documents = _documents(str(source), field, samples, max_length)
    order = list(range(len(documents)))
    random.Random(seed).shuffle(order)
    encoded = (_encode(tokenizer, documents[index]) for index in order)
    if packing == "rows":
        rows = _rows(encoded, tokenizer, samples, max_length)
    else:
        rows = _windows(encoded, tokenizer, samples, max_length)
    drawn = tuple(islice(rows, samples))
    if len(drawn) < samples:
        unit = f"windows of {max_length} tokens" if packing == "windows" else "documents"
        raise CalibrationError(
            f"{source} holds {len(drawn)} {unit}, but {samples} are asked for; ask for fewer (--samples)"
            + (", or shorter ones (--max-length)" if packing == "windows" else "")
        )
    return CalibrationSet(drawn, batch_size, str(source))


def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def _frame(tokenizer: PreTrainedTokenizerBase) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The special tokens that the tokenizer puts before and after a text."""
    inner = _encode(tokenizer, "a")
    whole = list(tokenizer("a")["input_ids"])
    for start in range(len(whole) - len(inner) + 1):
        if inner and whole[start : start + len(inner)] == inner:
            return tuple(whole[:start]), tuple(whole[start + len(inner) :])
    return (), ()


def _windows(
    documents: Iterable[list[int]], tokenizer: PreTrainedTokenizerBase, samples: int, max_length: int
) -> Iterator[tuple[int, ...]]:
    before, after = _frame(tokenizer)
    room = _room(max_length, before, after)
    end = [tokenizer.eos_token_id] if isinstance(tokenizer.eos_token_id, int) and not after else []
    pending: list[int] = []
    for document in documents:
        pending += document + end
        while len(pending) >= room:
            yield (*before, *pending[:room], *after)
            del pending[:room]


def _rows(
    documents: Iterable[list[int]], tokenizer: PreTrainedTokenizerBase, samples: int, max_length: int
) -> Iterator[tuple[int, ...]]:
    before, after = _frame(tokenizer)
    room = _room(max_length, before, after)
    for document in documents:
        if not document:
            raise CalibrationError("a document holds no token that the tokenizer knows of")
        yield (*before, *document[:room], *after)


def _room(max_length: int, before: tuple[int, ...], after: tuple[int, ...]) -> int:
    room = max_length - len(before) - len(after)
    if room < 1:
        raise CalibrationError(f"rows of {max_length} tokens have no room beside {len(before + after)} special ones")
    return room


def _documents(source: str, field: str, samples: int, max_length: int) -> list[str]:
    path = Path(os.path.expanduser(source))
    if path.is_file():
        try:
            if path.suffix.lower() in _JSON_SUFFIXES:
                return list(_jsonl(path, field))
            return _paragraphs(path)
        except UnicodeDecodeError as error:
            raise CalibrationError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start})") from None
        except OSError as error:
            raise CalibrationError(f"cannot read the calibration file {path}: {error.strerror}") from None
    check_source(source)
    return _dataset(source, field, samples, 40 * samples * max_length)


def check_source(source: str) -> None:
    """Refuse what can only be a file, and is none.

    Raises:
        CalibrationError: it is.
    """
    path = Path(os.path.expanduser(source))
    named_so = path.suffix.lower() in _JSON_SUFFIXES | _TEXT_SUFFIXES or source.startswith((".", "/", "~"))
    if named_so and not path.exists():
        raise CalibrationError(f"the calibration file {source!r} does not exist")


def _jsonl(path: Path, field: str) -> Iterator[str]:
    with path.open(encoding="utf-8") as lines:
        number = 0
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise CalibrationError(f"{path}, line {number}: not JSON ({error.msg}, column {error.colno})") from None
            except (ValueError, RecursionError) as error:  # a number too long, lists too deep
                raise CalibrationError(f"{path}, line {number}: not JSON ({error})") from None
            if not isinstance(record, dict) or field not in record:
                fields = ", ".join(record) if isinstance(record, dict) else f"a {type(record).__name__}"
                raise CalibrationError(f"{path}, line {number}: no field {field!r} (it holds: {fields})")
            yield _text(record[field], f"{path}, line {number}", field)
    if number == 0:
        raise CalibrationError(f"{path} is empty")


def _text(value: object, where: str, field: str) -> str:
    if not isinstance(value, str):
        raise CalibrationError(f"{where}: the field {field!r} holds a {type(value).__name__}, not text")
    if not value.strip():
        raise CalibrationError(f"{where}: the field {field!r} is empty")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise CalibrationError(f"{where}: the field {field!r} holds half of a surrogate pair") from None
    return value


def _paragraphs(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    paragraphs = [part.strip() for part in text.replace("\r\n", "\n").split("\n\n") if part.strip()]
    if not paragraphs:
        raise CalibrationError(f"{path} is empty")
    if re.match(r'\{\s*"', paragraphs[0]):
        raise CalibrationError(f"{path} looks like JSON; name it .jsonl to have it read as such")
    return paragraphs


def _dataset(source: str, field: str, samples: int, characters: int) -> list[str]:
    """Documents of a data set on the hub (or in a local directory): at least `samples`, and about ten times the text
    that is needed."""
    import datasets

    name, config, split, *_ = (*source.split(":"), "", "", "")
    try:
        stream = datasets.load_dataset(name, config or None, split=split or "train", streaming=True)
        documents: list[str] = []
        for number, record in enumerate(stream):
            if field not in record:
                raise CalibrationError(f"{source}: no field {field!r} (it holds: {', '.join(record)}); see --field")
            if isinstance(record[field], str) and record[field].strip():
                documents.append(_text(record[field], f"{source}, row {number}", field))
                characters -= len(documents[-1])
            if characters < 0 and len(documents) >= 10 * samples:
                break
    except CalibrationError:
        raise
    except Exception as error:
        cause = str(error).strip().split("\n")[0]
        raise CalibrationError(f"cannot read the data set {source!r}: {cause}") from error
    if not documents:
        raise CalibrationError(f"the data set {source!r} holds no text")
    return documents

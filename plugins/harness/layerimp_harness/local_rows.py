"""Read the rows of a task from local files, and keep what was read: path, number of rows, hash and licence."""

from __future__ import annotations

import glob
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerimp.errors import TaskError, listing
from layerimp.evaluator import DataFile
from layerimp_harness.places import ENDINGS

if TYPE_CHECKING:
    from datasets import Dataset

    from layerimp_harness.places import Source

_SHARDS = re.compile(r"-of-0*(\d+)\.parquet$")
_LISTED = re.compile(r"\A---\n(?:.*\n)*?license: *\n((?: *- .*\n)+)")
_NAMED = re.compile(
    r"^(?:[\W_]*licen[cs]e[\W_]*?[:|]|#+\s*licen[cs]e\w*\W*\n)[\W_]*([^|\n]*\w\)?)", re.IGNORECASE | re.MULTILINE
)
_LONGEST = 100  # characters of a licence's name


class LocalRows(Mapping[str, "Dataset"]):
    """The splits of a task's data set, each read from its local file when it is first asked for.

    Args:
        source: The data set of the task.
        directory: The data directory.

    Attributes:
        files: The files that were read so far.
    """

    def __init__(self, source: Source, directory: Path) -> None:
        self.source = source
        self.directory = directory
        self.files: list[DataFile] = []
        self._read: dict[str, Dataset] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self.source.splits)

    def __len__(self) -> int:
        return len(self.source.splits)

    def __getitem__(self, split: str) -> Dataset:
        """Return the rows of a split.

        Raises:
            TaskError: no file holds the split, or a file cannot be read; the text names the task and the paths.
        """
        from datasets import ReadInstruction, concatenate_datasets

        if split not in self.source.slices:
            return self._base(split)
        bases = {base: self._base(base) for base in self.source.bases(split)}
        lengths = {base: len(rows) for base, rows in bases.items()}
        parts = ReadInstruction.from_spec(self.source.slices[split]).to_absolute(lengths)
        return concatenate_datasets([bases[part.splitname].select(range(part.from_, part.to)) for part in parts])

    def find(self, split: str) -> list[Path]:
        """Return the files that hold a split of the data set, in order; empty if there are none.

        Raises:
            TaskError: some of the shards are missing.
        """
        for place in self.source.places(split):
            files = [self.directory / name for name in sorted(glob.glob(place, root_dir=self.directory))]
            if files:
                of = _SHARDS.search(files[0].name)
                if of and int(of[1]) != len(files):
                    raise TaskError(f"task {self.source.task!r}: {len(files)} of {of[1]} files {place}")
                return files
        return []

    def missing(self, split: str) -> str:
        """Return, for a message, where rows of a task's split were looked for; empty if they are there."""
        places = [
            str(self.directory / place)
            for base in self.source.bases(split)
            if not self.find(base)
            for place in self.source.places(base)
            if place.endswith(ENDINGS[0])  # the message names the other formats once
        ]
        return f"{self.source.task!r}, split {split}: {' or '.join(places)}" if places else ""

    def where(self, split: str) -> str:
        """Return the path of the file that holds a split, or the first of several, with its columns, for messages."""
        base = next(iter(self.source.bases(split)), split)
        columns = f" (columns: {listing(self._read[base].column_names)})" if base in self._read else ""
        return f"{next(iter(self.find(base)), self.directory)}{columns}"

    def _base(self, split: str) -> Dataset:
        from datasets import concatenate_datasets

        if split not in self._read:
            files = self.find(split)
            if not files:
                raise no_rows(self.missing(split))
            self._read[split] = concatenate_datasets([self._rows(path, split) for path in files])
        return self._read[split]

    def _rows(self, path: Path, split: str) -> Dataset:
        content = path.read_bytes()
        rows = read_rows(content, path, self.source.task)
        self.files.append(
            DataFile(
                task=self.source.task,
                split=split,
                path=path.relative_to(self.directory).as_posix(),
                rows=len(rows),
                sha256=hashlib.sha256(content).hexdigest(),
                licence=licence(path, self.directory),
            )
        )
        return rows


def no_rows(*missing: str) -> TaskError:
    """Return one error for all missing rows, each as `LocalRows.missing` words it."""
    named = "; ".join(missing)
    return TaskError(f"there are no local rows (.jsonl, .parquet) of {named}; without a data directory the hub is read")


def read_rows(content: bytes, path: Path, task: str) -> Dataset:
    """Return the rows in the content of a file.

    Raises:
        TaskError: the content is broken, has no rows, or has something else than rows.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import Dataset
    from datasets.table import InMemoryTable

    try:
        if path.suffix == ".parquet":
            rows = Dataset(InMemoryTable(pq.read_table(pa.BufferReader(content))))
        else:
            rows = _json_lines(content, path, task)
    except pa.ArrowException as error:
        raise TaskError(f"task {task!r}: {path} cannot be read: {' '.join(str(error).split())[:200]}") from error
    if not len(rows):
        raise TaskError(f"task {task!r}: {path} holds no rows")
    return rows


def _json_lines(content: bytes, path: Path, task: str) -> Dataset:
    from datasets import Dataset

    rows: list[dict[str, Any]] = []
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:  # of the syntax, or of the encoding
            raise TaskError(f"task {task!r}: {path}, line {number}: no JSON: {error}") from error
        if not isinstance(row, dict):
            raise TaskError(f"task {task!r}: {path}, line {number}: no JSON object, but a {type(row).__name__}")
        rows.append(row)
    columns = dict.fromkeys(column for row in rows for column in row)
    return Dataset.from_dict({column: [row.get(column) for row in rows] for column in columns})


def licence(path: Path, directory: Path) -> str:
    """Return the licence that a README states beside a file, or above it below the data directory; else an empty text.

    A list in the front matter of a data set on the hub is read, or else a line or a section that is called licence.
    """
    inside = [folder for folder in path.parents if folder.is_relative_to(directory) and folder != directory]
    for readme in (file for folder in inside or [path.parent] for file in sorted(folder.glob("README*"))):
        text = readme.read_text(encoding="utf-8", errors="replace")
        if listed := _LISTED.match(text):
            return ", ".join(re.findall(r"- *(.*\S)", listed[1]))[:_LONGEST]
        if named := _NAMED.search(text):
            return named[1].strip()[:_LONGEST]
    return ""

"""Read the rows of a task from local files, and keep what was read: path, number of rows, hash and licence."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from layerimp.errors import TaskError
from layerimp.evaluator import DataFile

if TYPE_CHECKING:
    from datasets import Dataset

    from layerimp_harness.places import Source

_FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
_LINE = re.compile(r"^[\W_]*licen[cs]e[\W_]*?[:|][\W_]*([^|\n]*\w\)?)", re.IGNORECASE | re.MULTILINE)
_HEADING = re.compile(r"^#+\s*licen[cs]e\w*\W*\n+([^\n]*\w\)?)", re.IGNORECASE | re.MULTILINE)
_LONGEST = 100  # characters of a licence's name


class LocalRows(Mapping[str, "Dataset"]):
    """The splits of a task's data set, each read from its local file when it is first asked for.

    Args:
        source: The data set of the task.
        directory: The data directory.

    Attributes:
        files: What was read so far, by split of the data set.
    """

    def __init__(self, source: Source, directory: Path) -> None:
        self.source = source
        self.directory = directory
        self.files: dict[str, DataFile] = {}
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
        parts = ReadInstruction.from_spec(self.source.slices[split]).to_absolute(
            {base: len(rows) for base, rows in bases.items()}
        )
        return concatenate_datasets([bases[part.splitname].select(range(part.from_, part.to)) for part in parts])

    def has(self, split: str) -> bool:
        """Return whether there are files for a split."""
        return not self.source.missing(split, self.directory)

    def where(self, split: str) -> str:
        """Return the path of the file that holds a split, or the first of several, for messages."""
        file = self.source.find(next(iter(self.source.bases(split)), split), self.directory)
        return str(file or self.directory)

    def _base(self, split: str) -> Dataset:
        if split not in self._read:
            path = self.source.find(split, self.directory)
            if path is None:
                raise TaskError(no_rows({(self.source.task, split): self.source.missing(split, self.directory)}))
            rows, digest = read_rows(path, self.source.task)
            self._read[split] = rows
            self.files[split] = DataFile(
                task=self.source.task,
                split=split,
                path=path.relative_to(self.directory).as_posix(),
                rows=len(rows),
                sha256=digest,
                licence=licence(path, self.directory),
            )
        return self._read[split]


def no_rows(missing: Mapping[tuple[str, str], list[str]]) -> str:
    """Return one message for all missing rows.

    Args:
        missing: The paths that were looked for, by task and split.
    """
    each = [f"{task!r}, split {split}: {' or '.join(paths)}" for (task, split), paths in missing.items()]
    named = "; ".join(each)
    return f"there are no local rows (.jsonl or .parquet) of {named}; without a data directory the hub is read"


def read_rows(path: Path, task: str) -> tuple[Dataset, str]:
    """Return the rows of a file, in memory, and the SHA-256 of the file, in hex.

    Raises:
        TaskError: the file cannot be read, holds no rows, or holds something else than rows.
    """
    import pyarrow as pa

    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    try:
        rows = _parquet(content) if path.suffix == ".parquet" else _json_lines(content, path, task)
    except pa.ArrowException as error:
        raise TaskError(f"task {task!r}: {path} cannot be read: {' '.join(str(error).split())[:200]}") from error
    if not len(rows):
        raise TaskError(f"task {task!r}: {path} holds no rows")
    return rows, digest


def _parquet(content: bytes) -> Dataset:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import Dataset
    from datasets.table import InMemoryTable

    return Dataset(InMemoryTable(pq.read_table(pa.BufferReader(content))))


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

    The front matter of a data set on the hub is read, or else a line or a section that is called licence.
    """
    inside = [folder for folder in path.parents if folder.is_relative_to(directory) and folder != directory]
    for folder in inside or [path.parent]:
        for readme in sorted(folder.glob("README*")):
            if stated := _stated(readme.read_text(encoding="utf-8", errors="replace")):
                return stated
    return ""


def _stated(text: str) -> str:
    """Return the licence that the text of a README states; empty if it states none."""
    if front := _FRONT_MATTER.match(text):
        try:
            held = yaml.safe_load(front[1])
        except yaml.YAMLError:
            held = None
        named = held.get("license") or held.get("licence") if isinstance(held, dict) else None
        if named:
            return ", ".join(map(str, named if isinstance(named, list) else [named]))[:_LONGEST]
    line = _LINE.search(text) or _HEADING.search(text)
    return line[1].strip()[:_LONGEST] if line else ""

"""The store of a grid's finished cells, in SQLite, with a transaction each: a kill loses only cells in progress."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from filelock import FileLock, Timeout

from layerimp._version import versions
from layerimp.bench.cells import Cell, Outcome, Result
from layerimp.errors import OutputError

Digests = dict[tuple[str, str], str]
"""Digests of the content of files, by their paths and stamps of size and time."""
FILE, LOCK = "bench.sqlite", "bench.lock"
FORMAT = 6
"""The version of the tables, of the cells' keys and results, and of what the core computes, which no key covers."""

_TABLES = """
CREATE TABLE IF NOT EXISTS cells (
    key TEXT PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, content TEXT NOT NULL,
    result TEXT, error TEXT, seconds REAL NOT NULL, attempts INTEGER NOT NULL, versions TEXT NOT NULL,
    finished TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CHECK ((result IS NULL) <> (error IS NULL))
);
CREATE TABLE IF NOT EXISTS layout (only INTEGER PRIMARY KEY CHECK (only = 1), document TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS started (key TEXT PRIMARY KEY, times INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, stamp TEXT NOT NULL, digest TEXT NOT NULL);
"""


@dataclass(frozen=True)
class StoredCell:
    """A stored cell.

    Attributes:
        result: The result; None if the cell failed.
        error: Why the cell failed; empty if it did not fail.
        seconds: How long the cell took.
        versions: The versions of the libraries that computed the cell.
    """

    result: Result | None
    error: str
    seconds: float
    versions: str


class Store:
    """The store in a directory.

    Only one process at a time may write. It holds the operating system's lock on a file, which is released when the
    process ends. A new store that cannot be written is removed again.

    Args:
        directory: The directory of the store; created if necessary.
        write: Whether to write, which takes the lock.

    Raises:
        OutputError: the directory holds other files or cannot be written, another process is writing to it, or the
            store's file is damaged. The methods also raise it if the disk is full or the file is damaged later.
    """

    def __init__(self, directory: Path, *, write: bool = True) -> None:
        self.directory = directory
        self._path = path = directory / FILE
        check_place(directory, write=write)
        is_new, lock_is_new = write and not path.exists(), write and not (directory / LOCK).exists()
        self._lock = FileLock(directory / LOCK)
        if write:
            self._take_lock()
        try:
            with self._answered():
                mode = "rwc" if write else "rw"  # to read may need to undo what a killed process began
                self._connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True)
                self._check_format(write=write)
        except BaseException:
            self.close()
            for name in [FILE, f"{FILE}-journal"] * is_new + [LOCK] * lock_is_new:
                (directory / name).unlink(missing_ok=True)
            if is_new:
                with suppress(OSError):
                    directory.rmdir()
            raise

    def _take_lock(self) -> None:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise OutputError(f"another process is at work in {self.directory}; wait for it, or end it") from None
        except OSError as error:
            raise OutputError(f"cannot write in {self.directory}: {error.strerror}") from error

    @contextmanager
    def _answered(self) -> Iterator[None]:
        """Turn errors of SQLite in this context into an `OutputError` of one line."""
        try:
            yield
        except sqlite3.Error as error:
            raise OutputError(f"cannot use {self._path}: {error}") from error
        except ValueError as error:
            raise OutputError(f"cannot use {self._path}: it is damaged ({error})") from error

    def _check_format(self, *, write: bool) -> None:
        (state,) = self._connection.execute("PRAGMA quick_check(1)").fetchone()
        if state != "ok":
            raise OutputError(f"cannot use {self._path}: it is damaged ({' '.join(state.split())})")
        tables = {name for (name,) in self._connection.execute("SELECT name FROM sqlite_master")}
        if "layout" not in tables and (tables or not write):
            raise OutputError(f"{self._path} holds no grid: it has {'other' if tables else 'no'} tables")
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if tables and version != FORMAT:
            raise OutputError(f"{self.directory} was written by another version of layerimp; take another directory")
        if not tables:
            with self._connection:
                self._connection.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {FORMAT}; COMMIT;")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the store, and let go of the lock."""
        if connection := vars(self).get("_connection"):
            connection.close()
        self._lock.release()

    def put(self, outcomes: Iterable[tuple[Cell, Outcome]]) -> None:
        """Store the outcomes of cells that were computed together, either all of them or none."""
        rows = [
            (
                cell.key,
                cell.kind,
                str(cell),
                json.dumps(cell.content),
                None if outcome.result is None else json.dumps(outcome.result),
                outcome.error if outcome.result is None else None,
                outcome.seconds,
                versions(),
            )
            for cell, outcome in outcomes
        ]
        with self._answered(), self._connection:
            self._connection.executemany(
                "INSERT INTO cells (key, kind, name, content, result, error, seconds, attempts, versions)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, 1, ?) ON CONFLICT (key) DO UPDATE SET result = excluded.result,"
                " error = excluded.error, seconds = excluded.seconds, attempts = attempts + 1,"
                " versions = excluded.versions, finished = CURRENT_TIMESTAMP",
                rows,
            )
            self._connection.executemany("DELETE FROM started WHERE key = ?", [(key,) for key, *_ in rows])

    def begin(self, cells: Iterable[Cell]) -> None:
        """Note that cells are started, which is known later even if this process is killed."""
        with self._answered(), self._connection:
            self._connection.executemany(
                "INSERT INTO started VALUES (?, 1) ON CONFLICT (key) DO UPDATE SET times = times + 1",
                [(cell.key,) for cell in cells],
            )

    def end(self, keys: Iterable[str]) -> None:
        """Note that cells came back without an outcome, so that their starts do not count."""
        with self._answered(), self._connection:
            self._connection.executemany("DELETE FROM started WHERE key = ?", [(key,) for key in keys])

    def started(self) -> dict[str, int]:
        """Return how often cells were started and neither finished nor came back, by key."""
        with self._answered():
            return dict(self._connection.execute("SELECT key, times FROM started"))

    def records(self) -> dict[str, StoredCell]:
        """Return all cells, by key."""
        with self._answered():
            rows = self._connection.execute("SELECT key, result, error, seconds, versions FROM cells")
            return {
                key: StoredCell(None if result is None else json.loads(result), error or "", *rest)
                for key, result, error, *rest in rows
            }

    def keep_layout(
        self, document: Mapping[str, Any], digests: Mapping[tuple[str, str], str] = MappingProxyType({})
    ) -> None:
        """Store the last requested grid, and the digests of the files that it reads."""
        with self._answered(), self._connection:
            self._connection.execute("INSERT OR REPLACE INTO layout VALUES (1, ?)", (json.dumps(document),))
            rows = [(*file, digest) for file, digest in digests.items()]
            self._connection.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", rows)

    def layout(self) -> dict[str, Any] | None:
        """Return the last requested grid; None if there is none yet."""
        with self._answered():
            row = self._connection.execute("SELECT document FROM layout").fetchone()
            return None if row is None else dict(json.loads(row[0]))

    def digests(self) -> Digests:
        """Return the digests of files."""
        with self._answered():
            rows = self._connection.execute("SELECT path, stamp, digest FROM files")
            return {(path, stamp): digest for path, stamp, digest in rows}


def stored_in(directory: Path) -> AbstractContextManager[Store | None]:
    """Open the store in a directory to read it; None if there is none yet, or a process was killed as it began one."""
    file = directory / FILE
    return Store(directory, write=False) if file.exists() and file.stat().st_size else nullcontext()


def check_place(directory: Path, *, write: bool = True) -> None:
    """Refuse a directory that holds no store and, if one is to be written, has no place for one.

    Raises:
        OutputError: the directory holds other files, or cannot be read.
    """
    if not (directory / FILE).exists() and (why_not := _why_not(directory, write=write)):
        raise OutputError(f"{directory} is no output of layerimp bench or run: it {why_not}")


def _why_not(directory: Path, *, write: bool) -> str:
    """Tell why a directory without a store cannot be used; empty if a store may be created there."""
    if not directory.exists():
        return "" if write else "does not exist"
    if not directory.is_dir():
        return "is a file"
    if any(entry.name != LOCK for entry in directory.iterdir()):
        return "holds other files"
    return "" if write else "is empty"

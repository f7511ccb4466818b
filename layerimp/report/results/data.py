"""What was read in place of data sets on the network, and how many documents were measured, in few words."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from layerimp.evaluator import DataFile

_SINGLY = 3
"""So many files of one folder are listed one by one."""


@dataclass(frozen=True)
class Read:
    """A file of rows that was read, or all that were read of a folder.

    Attributes:
        where: The path below the data directory; of a folder with the number of its files.
        rows: The number of rows.
        sha256: The SHA-256 of the file; of a folder that of the SHA-256s of its files, in hex, in the order of their
            paths.
        licence: The licence; empty if none is stated.
    """

    where: str
    rows: int
    sha256: str
    licence: str


def distinct(files: Iterable[DataFile]) -> list[DataFile]:
    """Return the files without those that are listed for several models or tasks, in the order of their paths."""
    return sorted({(file.path, file.sha256): file for file in files}.values(), key=lambda file: file.path)


def by_folder(files: Iterable[DataFile]) -> list[Read]:
    """Return the files that were read, or for a folder with many of them the folder."""
    folders: dict[str, list[DataFile]] = {}
    for file in distinct(files):
        folders.setdefault(str(PurePosixPath(file.path).parent), []).append(file)
    lines: list[Read] = []
    for folder, own in folders.items():
        if len(own) <= _SINGLY:
            lines += (Read(file.path, file.rows, file.sha256, file.licence) for file in own)
            continue
        digest = hashlib.sha256("".join(file.sha256 for file in own).encode()).hexdigest()
        licences = dict.fromkeys(file.licence for file in own if file.licence)
        lines.append(Read(f"{folder}: {len(own)} files", sum(file.rows for file in own), digest, ", ".join(licences)))
    return lines


def documents_asked(limit: int | None, limits: Mapping[str, int]) -> str:
    """Say how many documents of each task were asked for; empty if all were."""
    most = [f"first {limit} documents"] if limit is not None else []
    most += [f"{count} of {name}" for name, count in limits.items()]
    return "; ".join(most)

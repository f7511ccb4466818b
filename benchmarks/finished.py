"""The finished work of a long benchmark, as JSON lines in a file, from which the same command continues."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

Line = dict[str, Any]


def lines_in(path: Path | None) -> Iterator[Line]:
    """Read the lines of all settings, without a truncated one; none if there is no file yet."""
    if path is None or not path.exists():
        return
    for text in path.read_text(encoding="utf-8").splitlines():
        with suppress(ValueError):
            yield json.loads(text)


def replace(path: Path, line: Line) -> None:
    """Write a line into a file with one line for each model, in place of the older one of its model."""
    others = [other for other in lines_in(path) if other["model"] != line["model"]]
    path.write_text("".join(json.dumps(each) + "\n" for each in (*others, line)), encoding="utf-8")


class Finished:
    """The finished lines of a file that belong to one setting; other settings may share the file.

    Attributes:
        path: The file; None to keep nothing.
        setting: A hash of everything that determines the figures and is not in a line itself.
        lines: The finished lines.
    """

    def __init__(self, path: Path | None, settings: Any) -> None:
        self.path = path
        self.setting = hashlib.blake2b(json.dumps(settings).encode(), digest_size=8).hexdigest()
        self.lines = [line for line in lines_in(path) if line["setting"] == self.setting]

    def add(self, line: Line) -> None:
        """Append a line; the last line of the file may be truncated."""
        line = {"setting": self.setting, **line}
        self.lines.append(line)
        if self.path is None:
            return
        torn = self.path.exists() and not self.path.read_bytes().endswith(b"\n")
        with self.path.open("a", encoding="utf-8") as file:
            file.write("\n" * torn + json.dumps(line) + "\n")

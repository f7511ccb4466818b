"""The finished work of a long benchmark, as JSON lines in a file, from which the same command continues."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Line = dict[str, Any]


class Finished:
    """The finished lines of a file that belong to one setting; other settings may share the file.

    Attributes:
        path: The file; None to keep nothing.
        setting: A hash of everything that determines the figures and is not in a line itself.
        lines: The finished lines.
    """

    def __init__(self, path: Path | None, asked: Any) -> None:
        self.path = path
        self.setting = hashlib.blake2b(json.dumps(asked).encode(), digest_size=8).hexdigest()
        self.lines = list(self._read())

    def _read(self) -> Iterator[Line]:
        """Read the lines of this setting, without a truncated one."""
        if self.path is None or not self.path.exists():
            return
        for text in self.path.read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if line["setting"] == self.setting:
                yield line

    def add(self, line: Line) -> None:
        """Append a line; the last line of the file may be truncated."""
        line = {"setting": self.setting, **line}
        self.lines.append(line)
        if self.path is None:
            return
        torn = self.path.exists() and not self.path.read_bytes().endswith(b"\n")
        with self.path.open("a", encoding="utf-8") as file:
            file.write("\n" * torn + json.dumps(line) + "\n")

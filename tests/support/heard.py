"""A progress that keeps what is noted."""

from __future__ import annotations

from layerimp.progress import Silent


class Heard(Silent):
    """Keeps what is noted."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)

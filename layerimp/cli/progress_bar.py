"""The progress bar of a stage."""

from __future__ import annotations

from rich.console import Console
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text


def bar(console: Console, total: int | None, unit_bytes: int) -> Progress:
    """Return a progress bar for some units of work, which shows bytes per second if a unit has bytes."""
    columns: list[ProgressColumn] = [TextColumn("{task.description}", markup=False), BarColumn()]
    if total is None:
        return Progress(SpinnerColumn(), columns[0], TimeElapsedColumn(), console=console)
    columns.append(DownloadColumn() if unit_bytes == 1 else MofNCompleteColumn())
    columns += [_Speed(unit_bytes)] if unit_bytes else []
    return Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console)


class _Speed(ProgressColumn):
    """The bytes that are read per second, from the time of the last units.

    Args:
        unit_bytes: The bytes of a unit.
    """

    def __init__(self, unit_bytes: int) -> None:
        super().__init__()
        self._unit_bytes = unit_bytes

    def render(self, task: Task) -> Text:
        """Return the speed; empty as long as it is not known."""
        speed = task.finished_speed or task.speed
        return Text(f"{decimal(round(speed * self._unit_bytes))}/s" if speed else "", style="progress.data.speed")

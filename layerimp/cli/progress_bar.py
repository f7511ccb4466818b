"""The progress of a stage: a bar on a terminal, and in words for a log."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

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

from layerimp.cli.heartbeat import elapsed
from layerimp.progress import span

if TYPE_CHECKING:
    from rich.console import Console

    from layerimp.cli.heartbeat import Clock


def bar(console: Console, total: int | None, unit_bytes: int, clock: Clock | None = None) -> Progress:
    """Return a progress bar for some units of work, which shows bytes per second if a unit has bytes."""
    columns: list[ProgressColumn] = [TextColumn("{task.description}", markup=False), BarColumn()]
    if total is None:
        columns = [SpinnerColumn(), columns[0], TimeElapsedColumn()]
    else:
        columns.append(DownloadColumn() if unit_bytes == 1 else MofNCompleteColumn())
        columns += [_Speed(unit_bytes)] if unit_bytes else []
        columns += [TimeElapsedColumn(), TimeRemainingColumn()]
    # The speed is that since the first report, which may count the work of an interrupted run.
    return Progress(*columns, console=console, get_time=clock, speed_estimate_period=math.inf)


class _Speed(ProgressColumn):
    """The bytes that are read per second.

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


def in_words(task: Task, unit: str, unit_bytes: int) -> str:
    """Say how far a stage is; see `layerimp.progress.Progress.stage`."""
    parts = [_share(task, unit, unit_bytes)] if task.total else []
    parts.append(f"{elapsed(task.elapsed or 0.0)} so far")
    parts += [f"about {span(task.time_remaining)} left"] if task.time_remaining else []
    return f"{task.description}: {', '.join(parts)}"


def _share(task: Task, unit: str, unit_bytes: int) -> str:
    """Say how many units are done."""
    done, total = int(task.completed), int(task.total or 0)
    if unit == "%":
        return f"{done}%"
    if unit_bytes == 1:
        return f"{decimal(done)} of {decimal(total)}"
    return f"{done:,} of {total:,} {unit}".rstrip()

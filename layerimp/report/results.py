"""The whole of what a grid, or a run, shows: in a notebook as tables, and in pandas as rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from layerimp.report.findings import Compared, Entry, Row
from layerimp.report.tables import PaperTable, removables, summaries
from layerimp.table import Column, Table

if TYPE_CHECKING:
    from pandas import DataFrame

TAGS = {1: "b", 2: "u", None: ""}
"""What sets apart the best and the runner-up, where the difference to those behind is significant."""


@dataclass(frozen=True)
class Findings(Compared):
    """The findings of a grid or a run.

    Attributes:
        cells: The number of cells, by state: `done`, `failed`, `open`; empty for a run, which has no cells.
        failures: The failed cells, with their errors.
        seconds: The total time of all cells.
        versions: The versions of the libraries that computed the cells; several entries if they changed.
        notes: Further notes for a reader.
    """

    cells: Mapping[str, int]
    failures: Sequence[tuple[str, str]]
    seconds: float
    versions: Sequence[str] = ()
    notes: Sequence[str] = ()

    @property
    def complete(self) -> bool:
        """Whether all requested results are there."""
        return not (self.failures or self.cells.get("failed") or self.cells.get("open"))

    def __repr__(self) -> str:
        labels = ", ".join(self.design.contenders)
        counts = ", ".join(f"{count} cells {state}" for state, count in self.cells.items() if count)
        return f"Findings({', '.join(self.models) or 'nothing yet'}; {labels}{counts and f'; {counts}'})"

    def _repr_html_(self) -> str:
        """What is retained, and how many blocks may go: the tables that stand above all others."""
        made = [_table(one) for one in (*summaries(self), *removables(self))]
        return "\n".join(table.html() for table in made) or f"<p>{escape(repr(self))}</p>"

    def to_pandas(self) -> DataFrame:
        """All rows of the tables as a pandas DataFrame: one for each metric of each scorer's models, healed or not.

        The columns: `model`, `pruner`, `ratio` (a share, or a number of blocks), `task` and `metric` (`retained` for
        what is retained on average), `scorer`, `healer` (empty where nothing is healed); `mean`, `low`, `high` and `n`
        of the metric over the repeats, with the 95 % interval; `original`, of the intact model; `retained`, what is
        retained of the task; `removed_blocks`, a share; and `rank` (see `Entry`).

        Raises:
            InputError: pandas is not installed.
        """
        rows = [row for model in self.models.values() for row in model.rows]
        records = [_record(row, entry) for row in rows for entry in row.entries.values()]
        return Table([Column(name, [record[name] for record in records]) for name in RECORD]).frame()


RECORD = (
    *("model", "pruner", "ratio", "task", "metric", "scorer", "healer", "mean", "low", "high", "n"),
    *("original", "retained", "removed_blocks", "rank"),
)
"""The columns of all rows."""


def _record(row: Row, entry: Entry) -> dict[str, Any]:
    """One contender in one row, by the names of `RECORD`."""
    value = entry.value
    return {
        "model": row.model,
        "pruner": row.pruner,
        "ratio": row.ratio,
        "task": row.task,
        "metric": row.metric,
        "scorer": entry.contender.scorer,
        "healer": entry.contender.healer,
        "mean": value.mean,
        "low": value.low,
        "high": value.high,
        "n": value.count,
        "original": None if row.original is None else row.original.value,
        "retained": None if entry.retained is None else entry.retained.mean,
        "removed_blocks": row.removed_blocks,
        "rank": entry.rank,
    }


def _table(paper: PaperTable) -> Table:
    """A table for papers as one for notebooks."""
    cells = list(zip(*paper.rows, strict=True))
    columns = [
        Column(name, [cell.text for cell in column], tags=[TAGS[cell.rank] for cell in column] if place else ())
        for place, (name, column) in enumerate(zip(paper.head, cells, strict=True))
    ]
    return Table(columns, paper.title)

"""The complete findings of a grid or a run, with their tables for notebooks and their rows for pandas."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from layerimp._table import Column, Table
from layerimp.report.findings import Compared, Entry, Row
from layerimp.report.tables import PaperTable, removables, summaries

if TYPE_CHECKING:
    from pandas import DataFrame

TAGS = {1: "b", 2: "u", None: ""}
"""HTML elements for the best value and the runner-up of a row, by rank."""


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
        """Show the summary tables: what is retained, and how many blocks may be removed."""
        made = [_table(one) for one in (*summaries(self), *removables(self))]
        return "\n".join(table.html() for table in made) or f"<p>{escape(repr(self))}</p>"

    def to_pandas(self) -> DataFrame:
        """Return the findings as a pandas DataFrame, with a row for each metric of each scorer, healed or not.

        The columns: `model`, `pruner`, `ratio` (a share, or a number of blocks), `task` and `metric` (`retained` for
        what is retained on average), `scorer`, `healer` (empty where nothing is healed); `mean`, `low`, `high` and `n`
        of the metric over the repeats, with the 95 % interval; `original`, of the intact model; `retained`, what is
        retained of the task; `removed_blocks`, a share, and the lowest and the highest share of the
        parameters, since blocks may differ in size; and `rank` (see `Entry`).

        Raises:
            InputError: pandas is not installed.
        """
        rows = [row for model in self.models.values() for row in model.rows]
        pairs = [(row, entry) for row in rows for entry in row.entries.values()]
        return Table([Column(name, [value(*pair) for pair in pairs]) for name, value in FIELDS.items()]).frame()


FIELDS: Mapping[str, Callable[[Row, Entry], Any]] = {
    "model": lambda row, entry: row.model,
    "pruner": lambda row, entry: row.pruner,
    "ratio": lambda row, entry: row.ratio,
    "task": lambda row, entry: row.task,
    "metric": lambda row, entry: row.metric,
    "scorer": lambda row, entry: entry.contender.scorer,
    "healer": lambda row, entry: entry.contender.healer,
    "mean": lambda row, entry: entry.value.mean,
    "low": lambda row, entry: entry.value.low,
    "high": lambda row, entry: entry.value.high,
    "n": lambda row, entry: entry.value.count,
    "original": lambda row, entry: None if row.original is None else row.original.value,
    "retained": lambda row, entry: None if entry.retained is None else entry.retained.mean,
    "removed_blocks": lambda row, entry: row.removed_blocks,
    "removed_parameters_low": lambda row, entry: row.removed_parameters[0],
    "removed_parameters_high": lambda row, entry: row.removed_parameters[1],
    "rank": lambda row, entry: entry.rank,
}
"""The columns of the DataFrame, and the value of one contender in one row for each."""


def _table(paper: PaperTable) -> Table:
    """Convert a table for papers to one for notebooks."""
    cells = list(zip(*paper.rows, strict=True))
    columns = [
        Column(
            name.replace("\n", ", "),
            [cell.text for cell in column],
            tags=[TAGS[cell.rank] for cell in column] if place else (),
        )
        for place, (name, column) in enumerate(zip(paper.head, cells, strict=True))
    ]
    return Table(columns, paper.title)

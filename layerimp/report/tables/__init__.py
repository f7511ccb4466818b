"""The tables of a run or a grid: each is built once, and terminal, notebook, page and files show the same.

`data_frame` holds all numbers as records, for pandas and CSV as well. `models`, `comparison` and `scores` arrange those
of a run or a grid in tables, and `compared` those of `layerimp compare`; `numbers` and `distances` say how they look.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from layerimp._table import Table, escaped_for_latex
from layerimp.report.tables.comparison import fidelity, quality, removables, summaries
from layerimp.report.tables.data_frame import as_csv
from layerimp.report.tables.models import side_by_side
from layerimp.report.tables.scores import scores

if TYPE_CHECKING:
    from layerimp.report.results.comparison import Compared


def first(compared: Compared) -> list[Table]:
    """Return the tables that a notebook shows: the models side by side, or over amounts and repeats what is retained.

    If nothing was removed or measured, these are the scores.
    """
    if compared.design.repeats > 1 or len(compared.design.amounts) > 1:
        return [*summaries(compared), *removables(compared)]
    tables = []
    for model in compared.models.values():
        if model.removals or model.metrics or model.footprint:
            tables.append(side_by_side(compared, model))
        else:
            tables += [scores(model, label) for label in model.scored]
    return tables


def notes(tables: Iterable[Table]) -> list[str]:
    """Return the lines that explain tables, each once."""
    return list(dict.fromkeys(note for table in tables for note in table.notes))


def as_markdown(compared: Compared) -> str:
    """Return the tables in Markdown."""
    tables = _for_papers(compared)
    return "\n".join([*(table.markdown() for table in tables), *(f"- {note}" for note in notes(tables)), ""])


def as_latex(compared: Compared) -> str:
    """Return the tables in LaTeX, for a document that uses `booktabs`."""
    tables = _for_papers(compared)
    comments = (f"% {escaped_for_latex(note)}" for note in notes(tables))
    return "\n".join([*(table.latex() for table in tables), *comments, ""])


def _for_papers(compared: Compared) -> list[Table]:
    return [*quality(compared), *fidelity(compared), *removables(compared)]


FORMATS: Mapping[str, Callable[[Compared], str]] = {"markdown": as_markdown, "latex": as_latex, "csv": as_csv}
"""The formats of `layerimp report` for papers and programs."""

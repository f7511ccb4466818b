"""The tables of a comparison for papers and programs: Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import product

from layerimp.report.results.comparison import Compared
from layerimp.report.results.measures import Interval
from layerimp.report.statistics.removable import LEVELS
from layerimp.report.tables import REDUCTION, PaperTable, Shown, legend, paper_tables, removables


def as_markdown(compared: Compared) -> str:
    """Render the tables in Markdown."""
    return _document(compared, _markdown, "\n".join(f"- {line}" for line in legend(compared)) + "\n")


def _markdown(table: PaperTable) -> str:
    lines = [table.head, ["---"] * len(table.head)]
    lines += [[f"**{cell.text}**" if cell.best else cell.text for cell in row] for row in table.rows]
    return f"## {table.title}\n\n" + "".join(f"| {' | '.join(_piped(line))} |\n" for line in lines)


def _piped(line: Sequence[str]) -> list[str]:
    return [text.replace("|", "\\|") for text in line]


def as_latex(compared: Compared) -> str:
    """Render the tables in LaTeX, for a document that uses `booktabs`."""
    return _document(compared, _latex, "".join(f"% {_escaped(line)}\n" for line in legend(compared)))


def _latex(table: PaperTable) -> str:
    last = "l" if table.head[-1] == REDUCTION else "r"
    columns = "l" * table.place + "r" * (len(table.head) - table.place - 1) + last
    head = " & ".join(_escaped(name) for name in table.head)
    rows = [" & ".join(_cell(cell) for cell in row) for row in table.rows]
    body = " \\\\\n".join(rows)
    return (
        f"\\begin{{table}}\n\\centering\n\\caption{{{_escaped(table.title)}}}\n\\begin{{tabular}}{{{columns}}}\n\\toprule\n"
        f"{head} \\\\\n\\midrule\n{body} \\\\\n\\bottomrule\n\\end{{tabular}}\n\\end{{table}}\n"
    )


def _cell(cell: Shown) -> str:
    return f"\\textbf{{{_escaped(cell.text)}}}" if cell.best else _escaped(cell.text)


_TEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "∞": r"$\infty$",
    "≥": r"$\geq$",
    "−": r"$-$",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def _escaped(text: str) -> str:
    return re.sub("|".join(map(re.escape, _TEX)), lambda match: _TEX[match[0]], text)


def as_csv(compared: Compared) -> str:
    """Render all tables as one CSV table.

    There is a row for each data set, model and metric. Each scorer, and each scorer with a healer, has columns for the
    mean and its ends: `_low` and `_high` for the 95 % interval over the repeats, `_documents_low` and `_documents_high`
    for one standard error over the documents. The original has only the latter. The last rows hold numbers of removable
    blocks.
    """
    labels = list(compared.design.contenders)
    head = ["pruner", "amount", "data set", "documents", "model", "metric", "better"]
    head += ["original", "original_low", "original_high"]
    parts = ("", "_low", "_high", "_n", "_documents_low", "_documents_high")
    head += [f"{label}{part}" for label in labels for part in parts]
    head += ["blocks_removed", "parameters_removed_low", "parameters_removed_high"]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(head)
    for model, row in compared.everything:
        better = "higher" if row.higher_is_better else "lower"
        count, value, ends = None, None, None
        if row.original is not None:
            count, value, ends = row.original.documents, row.original.value, row.original.ends
        cells: list[object] = [row.pruner, row.amount, row.task, count, model, row.metric, better]
        cells += [value, *(ends or (None, None))]
        for label in labels:
            entry = row.entries.get(label)
            cells += [None] * len(parts) if entry is None else [*_numbers(entry.value), *(entry.ends or (None, None))]
        writer.writerow([*cells, row.removed_blocks, *row.removed_parameters])
    for name, results in compared.models.items():
        for pruner, level in product(dict.fromkeys(pruner for pruner, _ in results.removable), LEVELS):
            cells = [pruner, None, "removable blocks", None, name, f"{level:.0%} retained", "higher", None, None, None]
            for label in labels:
                one = results.removable.get((pruner, label))
                cells += [None] * len(parts) if one is None else [*_numbers(one.levels[level].mean), None, None]
            writer.writerow([*cells, None, None, None])
    return file.getvalue()


def _numbers(value: Interval) -> tuple[float | None, ...]:
    return value.mean, value.low, value.high, value.count


def _document(compared: Compared, render: Callable[[PaperTable], str], words: str) -> str:
    return "\n".join([*map(render, [*paper_tables(compared), *removables(compared)]), words])


FORMATS: Mapping[str, Callable[[Compared], str]] = {"markdown": as_markdown, "csv": as_csv, "latex": as_latex}

"""The table of rounding weights beside removing blocks: how far either is from the intact model.

The results are those of `benchmarks/fidelity_table.py`; the page "How far from the intact model" has all of them.
"""

from __future__ import annotations

from typing import Any

import distances

from layerimp.fidelity import Fidelity
from layerimp.report.tables.fidelity_figures import FIGURES

SHOWN = ("divergence", "agreement", "copying")
HEADS = ["model", "instead of the intact model", *SHOWN]


def table() -> tuple[list[str], list[list[str]]]:
    """Return the heads of the table, and two rows for each model: rounded weights, and the fewest blocks."""
    rows = []
    for line in distances.results():
        rounded = next(row for row in line["rows"] if not row["removed"])
        pruned = min(line["rows"], key=lambda row: (-row["removed"], row["fidelity"]["divergence"]["mean"]))
        healer = pruned["by"].partition("+")[2]
        left = f"{line['blocks'] - pruned['removed']} of {line['blocks']} blocks"
        left += f", healed by {healer}" if healer else ""
        name = distances.NAMES.get(line["model"], line["model"])
        rows += [[name, rounded["by"], *_figures(rounded)], ["", left, *_figures(pruned)]]
    return HEADS, rows


def _figures(row: dict[str, Any]) -> list[str]:
    fidelity = Fidelity.model_validate(row["fidelity"])
    values = [(FIGURES[name], FIGURES[name].of(fidelity)) for name in SHOWN]
    return ["" if value is None else str(figure.show(value)) for figure, value in values]

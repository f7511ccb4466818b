"""The tables of how far pruned and rounded models are from the intact ones, from the results of a benchmark.

The results are those of `benchmarks/fidelity_table.py`, and lie in `benchmarks/results/fidelity.jsonl`.
"""

from __future__ import annotations

import json
from typing import Any

import pages

from layerimp.fidelity import Fidelity
from layerimp.report.tables.fidelity_figures import FIGURES, Figure

DATA = pages.ROOT / "benchmarks" / "results" / "fidelity.jsonl"
NAMES = {"smollm2": "SmolLM2-135M", "gemma": "Gemma 3 270M", "minilm-sst2": "MiniLM, SST-2"}
"""How the page calls the models, by the name of their directory."""
_MEDIAN = Figure(lambda fidelity: fidelity.divergence.median if fidelity.divergence else None)
SHOWN = {
    "divergence": FIGURES["divergence"],
    "divergence median": _MEDIAN,
    **{name: figure for name, figure in FIGURES.items() if name != "divergence" and "images" not in name},
}
"""The figures of the table; none of its models reads images."""


def results() -> list[dict[str, Any]]:
    """Return what was measured of each model, as it was written."""
    return [json.loads(line) for line in DATA.read_text(encoding="utf-8").splitlines()]


def table() -> tuple[list[str], list[list[str]]]:
    """Return the heads of the table, and its rows: the intact model's numbers, then each other model's."""
    head, rows = ["model", "without", *SHOWN], []
    for line in results():
        intact = Fidelity.model_validate(line["rows"][0]["fidelity"])
        name = NAMES.get(line["model"], line["model"])
        rows.append([name, "", *(_shown(figure, figure.intact(intact)) for figure in SHOWN.values())])
        for row in line["rows"]:
            removed = f"{row['removed']} of {line['blocks']}" if row["removed"] else ""
            fidelity = Fidelity.model_validate(row["fidelity"])
            shown = [_shown(figure, figure.of(fidelity)) for figure in SHOWN.values()]
            rows.append(["", ", ".join(filter(None, (removed, row["by"]))), *shown])
    return head, rows


def _shown(figure: Figure, value: float | None) -> str:
    return "" if value is None else str(figure.show(value))

"""How many differences become visible when models are compared document by document.

    python benchmarks/paired.py GRID_DIR [GRID_DIR ...]

Each directory is the output of a finished `layerimp bench`. All pairs of pruned models are compared on each task, draw
by draw, once as if they had been measured on different documents, and once document by document. The output has the
number of pairs that differ significantly at the 5 % level, without a correction, so that the two tests differ only in
the pairing, and the median factor by which the error of a difference falls.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from scipy import stats

from layerimp.bench.cell_graph import Layout
from layerimp.bench.results import GridModel
from layerimp.bench.store import Store
from layerimp.metric import Key
from layerimp.report.paired_bootstrap import Estimate, difference
from layerimp.report.results.measures import LEVEL
from layerimp.report.rows import Measurements
from layerimp.steps import removed_by


def main(directories: Annotated[list[Path], typer.Argument(help="Outputs of layerimp bench.")]) -> None:
    """Count significant differences, unpaired and paired."""
    table = Table("model", "task", "metric", "documents", "pairs", "unpaired", "paired", "error falls by")
    for directory in directories:
        for label, model in _measured(directory):
            for key, metric in model.intact.items():
                table.add_row(label, *key, str(metric.count), *_counted(model, key))
    Console().print(table)


def _measured(directory: Path) -> Iterator[tuple[str, Measurements]]:
    """Yield the models of a grid that are evaluated, with their labels."""
    with Store(directory, write=False) as store:
        layout, records = Layout.model_validate(store.layout()), store.records()
    results = {key: record.result for key, record in records.items() if record.result is not None}
    for label in layout.models:
        if (model := GridModel(layout, label, results).measurements()) is not None:
            yield label, model


def _counted(model: Measurements, key: Key) -> tuple[str, ...]:
    """Return the number of pairs, how many differ significantly in either test, and the factor between the errors."""
    left = {}
    for (_, amount, contender), models in model.left.items():
        for pruned in models:
            if key in pruned.metrics and not contender.healer:
                left[amount, removed_by(pruned.blocks)] = Estimate.of([pruned.metrics[key]])
    pairs = [
        (left[one], left[other])
        for one, other in combinations(left, 2)
        if one[0] == other[0] and math.isfinite(left[one].mean) and math.isfinite(left[other].mean)
    ]
    unpaired = paired = 0
    factors = []
    for one, other in pairs:
        if one.error is None or other.error is None:
            continue
        apart = math.hypot(one.error, other.error)
        contrast = difference(one, other, paired=True)
        unpaired += 2 * float(stats.norm.sf(abs(contrast.mean) / apart)) < 1 - LEVEL if apart else contrast.mean != 0
        paired += contrast.tells
        if contrast.low is not None and contrast.high is not None and contrast.high > contrast.low and apart:
            factors.append(2 * float(stats.norm.ppf((1 + LEVEL) / 2)) * apart / (contrast.high - contrast.low))
    return str(len(pairs)), str(unpaired), str(paired), f"{statistics.median(factors):.2f}" if factors else "-"


if __name__ == "__main__":
    typer.run(main)

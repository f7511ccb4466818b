"""The table of what methods choose, and how far the models then are from the intact one, from `benchmarks/choices.py`.

The results lie in `benchmarks/results/choices.jsonl`.
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from typing import Any

import pages
from metrics_compared import TITLES

DATA = pages.ROOT / "benchmarks" / "results" / "choices.jsonl"
HEAD = ["model", "without", "chosen by", "draws", "divergence", "agreement", "retained", "blocks of the first draw"]


def table() -> tuple[list[str], list[list[str]]]:
    """Return the heads and the rows: means over the draws of each method, unhealed and then healed."""
    cells: dict[tuple[str, int], dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for line in map(json.loads, DATA.read_text(encoding="utf-8").splitlines()):
        cells[line["model"], line["count"]][line["method"]].append(line)
    rows = []
    for (model, count), methods in sorted(cells.items()):
        for method, lines in methods.items():
            figures = [_change(lines, name) for name in ("divergence", "agreement", "retained")]
            blocks = ", ".join(map(str, sorted(lines[0]["blocks"])))
            rows.append([TITLES.get(model, model), str(count), method, str(len(lines)), *figures, blocks])
    return HEAD, rows


def _change(lines: list[dict[str, Any]], name: str) -> str:
    ends = [statistics.mean(_value(line[state], name) for line in lines) for state in ("unhealed", "healed")]
    return " → ".join(f"{end:.2f}" if name == "divergence" else f"{100 * end:.1f}" for end in ends)


def _value(measured: dict[str, Any], name: str) -> float:
    value: float = {
        "divergence": lambda: measured["divergence"]["mean"],
        "agreement": lambda: measured["agreement"],
        "retained": lambda: measured["retained"]["worst"]["mean"],
    }[name]()
    return value

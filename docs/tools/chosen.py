"""The tables of what methods choose, healed alike, from the results of `benchmarks/choices.py`.

The results lie in `benchmarks/results/choices.jsonl`.
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import pages
from metrics_compared import TITLES

DATA = pages.ROOT / "benchmarks" / "results" / "choices.jsonl"
NAMES = TITLES | {"smollm2": TITLES["smollm2-135m"], "gemma": TITLES["gemma-3-270m"]}
"""How the pages call the models, by the name of their directory."""
HEAD = ["model", "without", "chosen by", "draws", "divergence", "agreement", "retained", "blocks of the first draw"]
STATES = ("unhealed", "healed")
Line = dict[str, Any]
Table = tuple[list[str], list[list[str]]]


def cells() -> dict[tuple[str, int, str], dict[str, list[Line]]]:
    """Return what was measured, by model, number of blocks and setting, and then by method: a line for each draw."""
    found: dict[tuple[str, int, str], dict[str, list[Line]]] = defaultdict(lambda: defaultdict(list))
    for line in map(json.loads, DATA.read_text(encoding="utf-8").splitlines()):
        found[NAMES.get(line["model"], line["model"]), line["count"], line["setting"]][line["method"]].append(line)
    return dict(sorted(found.items()))


def value(line: Line, state: str, name: str) -> float | None:
    """Return one figure of a draw; None if it was not measured."""
    measured = line[state]
    if name == "retained":
        worst = (measured["retained"] or {}).get("worst")
        return None if worst is None else float(worst["mean"])
    return float(measured["divergence"]["mean"] if name == "divergence" else measured["agreement"])


def table() -> Table:
    """Return all results: means over the draws of each method, unhealed and then healed."""
    rows = []
    for (model, count, _), methods in cells().items():
        for method, lines in methods.items():
            figures = [_change(lines, name) for name in ("divergence", "agreement", "retained")]
            blocks = ", ".join(map(str, sorted(lines[0]["blocks"], key=str)))
            rows.append([model, str(count), method, str(len(lines)), *figures, blocks])
    return HEAD, rows


def summary() -> Table:
    """Return a row for each method and a column for each model, at its largest number of blocks.

    A column shows what is retained, or the divergence of a model that was measured on no tasks.
    """
    largest = {model: (model, count, setting) for model, count, setting in cells()}  # the last one is the largest
    head, columns = ["chosen by"], []
    for (model, count, _), methods in ((key, cells()[key]) for key in largest.values()):
        name = "retained" if all(_measured(lines, "retained") for lines in methods.values()) else "divergence"
        draws = sorted({len(lines) for lines in methods.values()})
        times = f"{' to '.join(map(str, draws[:: max(1, len(draws) - 1)]))} draw{'s' * (draws[-1] > 1)}"
        head.append(f"{model}, without {count}: {name} ({times})")
        columns.append({method: _change(lines, name) for method, lines in methods.items()})
    known = list(dict.fromkeys(method for column in columns for method in column))
    return head, [[method, *(column.get(method, "–") for column in columns)] for method in known]


def _measured(lines: Sequence[Line], name: str) -> bool:
    return all(value(line, state, name) is not None for line in lines for state in STATES)


def _change(lines: Sequence[Line], name: str) -> str:
    """Show the means over the draws, unhealed and healed; nothing if a draw was not measured."""
    if not _measured(lines, name):
        return ""
    ends = [statistics.mean(value(line, state, name) or 0.0 for line in lines) for state in STATES]
    return " → ".join(f"{end:.2f}" if name == "divergence" else f"{100 * end:.1f}" for end in ends)

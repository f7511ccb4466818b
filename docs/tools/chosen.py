"""The tables of what methods choose, healed alike, from the results of `benchmarks/choices.py`.

The results lie in `benchmarks/results/choices.jsonl`.
"""

from __future__ import annotations

import json
import math
import re
import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import pages
from metrics_compared import TITLES

from layerimp.report.results.measures import Difference
from layerimp.report.statistics import corrected, with_errors

DATA = pages.ROOT / "benchmarks" / "results" / "choices.jsonl"
NAMES = TITLES | {"smollm2": TITLES["smollm2-135m"], "gemma": TITLES["gemma-3-270m"]}
"""How the pages call the models, by the name of their directory."""
SETS = DATA.with_name("sets_compared.jsonl")
HEAD = ["model", "without", "chosen by", "draws", "divergence", "agreement", "retained", "blocks of the first draw"]
STATES = ("unhealed", "healed")
METHOD = "divergence, greedy"
"""The recommended method."""
MEASURES = {"retained": 100.0, "divergence": -1.0, "copying": 100.0}
"""What methods are compared by, with the factor by which a difference is shown, so that more is always better."""
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
    if name == "copying":
        return float(measured["copying"]["accuracy"]) if measured.get("copying") else None
    return float(measured["divergence"]["mean"] if name == "divergence" else measured["agreement"])


def table() -> Table:
    """Return all results: means over the draws of each method, unhealed and then healed."""
    rows = []
    for (model, count, _), methods in cells().items():
        for method, lines in methods.items():
            figures = [_change(lines, name) for name in ("divergence", "agreement", "retained")]
            blocks = ", ".join(map(str, sorted(lines[0]["blocks"], key=_depth)))
            rows.append([model, str(count), method, str(len(lines)), *figures, blocks])
    return HEAD, rows


def _depth(step: int | str) -> int:
    """Return the number of the first block of a step."""
    return int(re.split(r"\D", str(step))[0])


def summary() -> Table:
    """Return a row for each method and a column for each model, at its largest number of blocks.

    A column shows what is retained, or the divergence of a model that was measured on no tasks.
    """
    largest = {model: (model, count, setting) for model, count, setting in cells()}  # the last one is the largest
    head, columns = ["chosen by"], []
    for (model, count, _), methods in ((key, cells()[key]) for key in largest.values()):
        name = judged_by(methods)[0]
        draws = sorted({len(lines) for lines in methods.values()})
        times = f"{' to '.join(map(str, draws[:: max(1, len(draws) - 1)]))} draw{'s' * (draws[-1] > 1)}"
        head.append(f"{model}, without {count}: {name} ({times})")
        columns.append({method: _change(lines, name) + _copies(lines, name) for method, lines in methods.items()})
    known = list(dict.fromkeys(method for column in columns for method in column))
    return head, [[method, *(column.get(method, "–") for column in columns)] for method in known]


def contrasts(methods: dict[str, list[Line]], name: str) -> dict[str, Difference]:
    """Return by how much the recommended method is better than each other one after healing, with Holm's correction.

    A difference is paired by draws: both methods read the same text. Empty if fewer than two draws have both.
    """
    own = {line["seed"]: line for line in methods.get(METHOD, ())}
    found = {}
    for rival, lines in methods.items():
        pairs = [
            (value(own[line["seed"]], "healed", name), value(line, "healed", name))
            for line in lines
            if line["seed"] in own
        ]
        differences = [
            MEASURES[name] * (ours - theirs) for ours, theirs in pairs if ours is not None and theirs is not None
        ]
        if rival != METHOD and len(differences) > 1:
            error = statistics.stdev(differences) / math.sqrt(len(differences))
            found[rival] = with_errors(statistics.mean(differences), [(error, len(differences) - 1)])
    return corrected(found)


def judged_by(methods: dict[str, list[Line]]) -> list[str]:
    """Return by what methods are judged: by the tasks if there are some, and else by all other measures."""
    with_tasks = all(_measured(lines, "retained") for lines in methods.values())
    return ["retained"] if with_tasks else [name for name in MEASURES if name != "retained"]


def ahead() -> Table:
    """Return a row for each model, number of blocks and rival: by how much the recommended method is better."""
    rows = []
    for (model, count, _), methods in cells().items():
        by_measure = {name: contrasts(methods, name) for name in MEASURES}
        rivals = dict.fromkeys(rival for known in by_measure.values() for rival in known)
        rows += [
            [model, str(count), rival, *(_shown(known.get(rival), name) for name, known in by_measure.items())]
            for rival in rivals
        ]
    return ["model", "without", "against", "retained, points", "divergence, nats less", "copying, points"], rows


def sets() -> Table:
    """Return a row for each set of `benchmarks/sets_compared.py`: how far it is on other text, the nearest first."""
    lines = sorted(
        map(json.loads, SETS.read_text(encoding="utf-8").splitlines()), key=lambda line: sum(line["elsewhere"])
    )
    return ["chosen by", "blocks", "at new tokens", "at copied tokens"], [
        [line["by"], ", ".join(map(str, line["blocks"])), *(f"{value:.2f}" for value in line["elsewhere"])]
        for line in lines
    ]


def _shown(difference: Difference | None, name: str) -> str:
    """Show a difference with half of its interval, marked if it is significant."""
    if difference is None or difference.low is None:
        return "–"
    digits = 2 if name == "divergence" else 1
    mark = "" if difference.p is None or difference.p >= 0.05 else " ▲" if difference.mean > 0 else " ▼"
    return f"{difference.mean:+.{digits}f} ± {difference.mean - difference.low:.{digits}f}{mark}"


def _copies(lines: Sequence[Line], name: str) -> str:
    """Show beside a divergence how much repeated text the healed models copy, in per cent."""
    shares = [share for line in lines if (share := value(line, "healed", "copying")) is not None]
    return f"; copies {100 * statistics.mean(shares):.0f} %" if name == "divergence" and shares else ""


def _measured(lines: Sequence[Line], name: str) -> bool:
    return all(value(line, state, name) is not None for line in lines for state in STATES)


def _change(lines: Sequence[Line], name: str) -> str:
    """Show the means over the draws, unhealed and healed; nothing if a draw was not measured."""
    if not _measured(lines, name):
        return ""
    ends = [statistics.mean(value(line, state, name) or 0.0 for line in lines) for state in STATES]
    return " → ".join(f"{end:.2f}" if name == "divergence" else f"{100 * end:.1f}" for end in ends)

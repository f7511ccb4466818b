"""The tables of what methods choose: over all models, of a single one, and of what other pages show."""

from __future__ import annotations

import json
import re
from itertools import product
from statistics import fmean

import chosen
from choices import METHODS
from chosen import MEASURES, STATES, Line, Lines, draws_of, figures
from titles import DIRECTORIES, TITLES

from layerimp.report.results.measures import Difference
from layerimp.report.statistics import stability

COSTS = chosen.DATA.with_name("scorer_costs.jsonl")
SEARCHES = chosen.DATA.with_name("search_cost.jsonl")
SITES = {
    "avss": "the neurons (`mlp_act`, the default)",
    "avss-delta": "what the block adds (`block_delta`)",
    "block-influence": "`block-influence`, for comparison",
}
"""What AVSS reads, by method."""
SEARCHED = "divergence", "perplexity"
"""The scorers of the searches whose cost is measured."""
Table = tuple[list[str], list[list[str]]]
"""The head and the rows."""


def summary() -> Table:
    """Return a row for each method: what its scores cost, and how it does at the largest number of blocks."""
    head, columns = _columns()
    known = list(dict.fromkeys(method for column in columns for method in column))
    passes = costs()
    rows = [[f"`{name}`", passes.get(name, "–"), *(column.get(name) or "–" for column in columns)] for name in known]
    return ["chosen by", "cost", *head], rows


def costs() -> dict[str, str]:
    """Return what the scores of each method cost in bare passes, from the cheapest model to the dearest.

    A search scores several times: it has none.
    """
    lines = [json.loads(line)["costs"] for line in COSTS.read_text(encoding="utf-8").splitlines()]
    passes = {}
    for method, parts in METHODS.items():
        (scorer,) = parts["scorers"]
        if known := [line[scorer] for line in lines if scorer in line and "greedy" not in method]:
            passes[method] = "–".join(dict.fromkeys(f"{end:.1f}" for end in (min(known), max(known))))
    return passes


def searches() -> Table:
    """Return a row for each model: what the recommended method costs in bare passes."""
    head = ["model", "search by `divergence`", "by `perplexity`", "repair by `linear`"]
    lines = [json.loads(line) for line in SEARCHES.read_text(encoding="utf-8").splitlines()]
    for line in lines:
        line["model"] = DIRECTORIES.get(line["model"], line["model"])
    rows = []
    for line in sorted(lines, key=lambda line: list(TITLES).index(line["model"])):
        gaps = line["linear"]["gaps"]
        rows.append(
            [
                chosen.title(line["model"], line["count"]),
                *(f"{line[scorer]['passes']:.0f}, for {line[scorer]['scores']} scores" for scorer in SEARCHED),
                f"{line['linear']['passes']:.0f}, for {gaps} gap{'s' * (gaps > 1)}",
            ]
        )
    return head, rows


def sites() -> Table:
    """Return what is left by what AVSS reads, and by `block-influence`."""
    head, columns = _columns()
    rows = [[text, *(column.get(name) or "–" for column in columns)] for name, text in SITES.items()]
    return ["reads", *head], rows


def _columns() -> tuple[list[str], list[dict[str, str]]]:
    """Return a column for each model at the largest number of blocks: their heads, and what is shown by method.

    Divergence and copying after healing stand behind the panel, or for it.
    """
    head, columns = [], []
    for model, (count, methods) in chosen.largest().items():
        heads, parts = [], []
        for name in chosen.judged_by(model, methods):
            draws, after = draws_of(methods, name), name != "retained"
            heads.append(f"{name}{', healed' * after} ({draws} draw{'s' * (draws > 1)})")
            states, signs = STATES[1:] if after else STATES, chosen.signs(methods, name)
            parts.append(
                {each: figures(lines, name, draws, states, signs.get(each, "")) for each, lines in methods.items()}
            )
        head.append(f"{chosen.title(model, count)}: {'; '.join(heads)}")
        columns.append({each: "; ".join(part[each] or "–" for part in parts) for each in methods})
    return head, columns


def of_model(model: str) -> Table:
    """Return everything that was measured of a model: a row for each number of blocks and method."""
    amounts = {count: methods for (name, count), methods in chosen.cells().items() if name == model}
    names = [name for name in MEASURES if any(draws_of(methods, name) for methods in amounts.values())]
    rows = []
    for count, methods in amounts.items():
        signs = {name: chosen.signs(methods, name) for name in names}
        for method, lines in methods.items():
            shown = [figures(lines, name, len(lines), mark=signs[name].get(method, "")) for name in names]
            same = stability([frozenset(map(str, line["blocks"])) for line in lines])
            agreement = "–" if same is None else f"{same.same:.0%}"
            rows.append([str(count), f"`{method}`", str(len(lines)), *shown, agreement, _blocks(lines[0])])
    return ["without", "chosen by", "draws", *names, "stable", "blocks of the first draw"], rows


def _blocks(line: Line) -> str:
    """Return the removed blocks in their order in the model."""
    return ", ".join(map(str, sorted(line["blocks"], key=lambda step: int(re.split(r"\D", str(step))[0]))))


def by_task(model: str) -> Table:
    """Return what is retained of each task at the largest number of blocks, on average over the draws."""
    _, methods = chosen.largest()[model]
    tasks = max((_tasks(line, STATES[0]) for lines in methods.values() for line in lines), key=len).keys()

    def change(lines: Lines, task: str) -> str:
        shares = [[known[task] for line in lines if task in (known := _tasks(line, state))] for state in STATES]
        return " → ".join(f"{100 * fmean(known):.0f}" for known in shares if known) or "–"

    known = {
        method: lines
        for method, lines in methods.items()
        if any(tasks <= _tasks(line, STATES[0]).keys() for line in lines)
    }
    rows = [[f"`{method}`", *(change(lines, task) for task in tasks)] for method, lines in known.items()]
    return ["chosen by", *(f"`{task}`" for task in tasks)], rows


def _tasks(line: Line, state: str) -> dict[str, float]:
    """Return what a model retains of each task, of a group by its parts; nothing if it was measured on none."""
    retained = line.get(state, {}).get("retained") or {"tasks": {}}
    shares = {task: share["mean"] for task, share in retained["tasks"].items() if share is not None}
    return retained.get("parts") or shares


def ahead(model: str) -> Table:
    """Return by how much the recommended method is better: a row for each number of blocks, state and rival."""
    amounts = {count: methods for (name, count), methods in chosen.cells().items() if name == model}
    names = [name for name in MEASURES if any(draws_of(methods, name) for methods in amounts.values())]
    rows = []
    for (count, methods), state in product(amounts.items(), STATES[1:]):
        by_measure = [chosen.contrasts(methods, name, state=state) for name in names]
        for rival in methods:
            differences = [known.get(rival) for known in by_measure]
            if any(differences):
                cells = [shown(*each) + chosen.sign(each[0]) for each in zip(differences, names, strict=True)]
                rows.append([str(count), state, f"`{rival}`", *cells])
    return ["without", "models", "against", *(MEASURES[name].head for name in names)], rows


def shown(difference: Difference | None, name: str) -> str:
    """Show a difference with half of its interval; nothing if there is none."""
    if difference is None or difference.low is None:
        return "–"
    digits = 2 if name == "divergence" else 1
    return f"{difference.mean:+.{digits}f} ± {difference.mean - difference.low:.{digits}f}"

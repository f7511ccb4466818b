"""The tables of what methods choose: over all models, of a single one, and of what other pages show."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
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
SETS = chosen.DATA.with_name("sets_compared.jsonl")
RECOMMENDED = "divergence, greedy, 3 rescored"
"""The recommended search, as `benchmarks/sets_compared.py` calls it."""
MORE = chosen.DATA.with_name("choices_more.jsonl")
"""Choices of more than a quarter of the blocks."""
SITES = {
    "avss": "the neurons (`mlp_act`, the default)",
    "avss-delta": "what the block adds (`block_delta`)",
    "block-influence": "`block-influence`, for comparison",
}
"""What AVSS reads, by method."""
SEARCHED = "divergence", "perplexity"
"""The scorers of the searches whose cost is measured."""
TEXTS = {
    "windows": "documents joined",
    "short": "64 tokens a row",
    "few": "16 rows",
}
"""How the calibration text of the starter was varied, by the end of the file's name."""
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


def texts() -> Table:
    """Return a row for each method: what the starter retains by how its calibration text was made.

    A sign tells whether that differs from what the usual text leads to, over paired draws, with Holm's correction over
    the texts.
    """
    amount = ("starter", chosen.largest()["starter"][0])
    by_text = {"": chosen.cells()[amount]} | {
        name: chosen.cells(chosen.DATA.with_name(f"choices_{name}.jsonl"))[amount] for name in TEXTS
    }
    rows = []
    for method in by_text["few"]:
        lines = {name: methods[method] for name, methods in by_text.items()}
        signs = chosen.signs(lines, "retained", own="")
        cells = [figures(each, "retained", 5, STATES[:2], signs.get(name, "")) for name, each in lines.items()]
        rows.append([f"`{method}`", *cells])
    return ["chosen by", "as above", *TEXTS.values()], rows


def more() -> Table:
    """Return a row for each model that lost more than a quarter of its blocks, and each method."""
    rows = []
    for (model, count), methods in chosen.cells(MORE).items():
        marks = {name: chosen.signs(methods, name) for name in MEASURES}
        for method, lines in methods.items():
            shown = [figures(lines, name, len(lines), mark=marks[name].get(method, "")) or "–" for name in MEASURES]
            rows.append([chosen.title(model, count), f"`{method}`", str(len(lines)), *shown])
    return ["model", "chosen by", "draws", *MEASURES], rows


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


def sets(model: str) -> Table:
    """Return a row for each set of `benchmarks/sets_compared.py`: how far it is on other text, the nearest first.

    The time of a search is told in times of the recommended one.
    """
    lines: Sequence[Line] = [
        line
        for line in map(json.loads, SETS.read_text(encoding="utf-8").splitlines())
        if DIRECTORIES.get(line["model"], line["model"]) == model
    ]
    seconds = {line["by"]: line["seconds"] for line in lines if line["by"].startswith("divergence")}
    times = {by: f"{took / seconds[RECOMMENDED]:.1f}" for by, took in seconds.items() if took}
    where = ["at new tokens", "at copied tokens"] if len(lines[0]["elsewhere"]) > 1 else ["divergence"]
    return ["chosen by", "blocks", *where, "time"], [
        [
            line["by"],
            ", ".join(map(str, line["blocks"])),
            *(f"{value:.2f}" for value in line["elsewhere"]),
            times.get(line["by"], "–"),
        ]
        for line in sorted(lines, key=lambda line: sum(line["elsewhere"]))
    ]

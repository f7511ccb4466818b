"""What methods choose, healed alike: the results of `benchmarks/choices.py`, and how methods are compared.

The results lie in `benchmarks/results/choices.jsonl`, and differences document by document in `choices_pairs.jsonl`. A
draw may be measured twice: without tasks, and with them.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pages
from titles import DIRECTORIES, NUM_BLOCKS, TITLES

sys.path.append(str(pages.ROOT / "benchmarks"))
from choices import METHODS
from choices import STATES as BY_HEALER

from layerimp.report.results.measures import Difference
from layerimp.report.statistics import corrected, interval, with_errors

DATA = pages.ROOT / "benchmarks" / "results" / "choices.jsonl"
STATES = tuple(BY_HEALER.values())
METHOD = "divergence, greedy"
"""The recommended method."""
BASELINES = frozenset({"depth", "random"})
"""Methods that do not look at the model."""
PANEL = frozenset({"smollm2-135m", "gemma-3-270m"})
"""The models that the panel measures; divergence and copying stand beside it."""
Line = dict[str, Any]
Lines = Sequence[Line]
Methods = Mapping[str, Lines]
"""The lines of each method, a line for each draw."""
Amount = tuple[str, int]
"""A model, and how many of its blocks are removed."""


@dataclass(frozen=True)
class Measure:
    """A figure by which models are compared.

    Attributes:
        head: How a table calls a difference.
        factor: What a difference is multiplied by, so that more is better.
        form: How a mean is shown, after multiplication by the size of the factor.
    """

    head: str
    factor: float
    form: str

    def show(self, figure: float) -> str:
        """Return a mean, or half of its interval, as tables show it."""
        return self.form.format(abs(self.factor) * figure)


MEASURES = {
    "retained": Measure("retained, points", 100.0, "{:.1f}"),
    "divergence": Measure("divergence, nats less", -1.0, "{:.2f}"),
    "copying": Measure("copying, points", 100.0, "{:.1f}"),
}


def cells() -> dict[Amount, dict[str, list[Line]]]:
    """Return what was measured, by model and number of blocks, and then by method: in the order of the pages."""
    models, names = list(TITLES), list(METHODS)
    known: dict[Amount, dict[str, list[Line]]] = {}

    def place(line: Line) -> tuple[int, ...]:
        return _place(models, line["model"]), line["count"], _place(names, line["method"]), line["seed"]

    lines = merged(map(json.loads, DATA.read_text(encoding="utf-8").splitlines()))
    for line in sorted(lines, key=place):
        known.setdefault((line["model"], line["count"]), {}).setdefault(line["method"], []).append(line)
    return known


def _place(order: list[str], name: str) -> int:
    """Return the place of a name in an order; unknown names come last."""
    return order.index(name) if name in order else len(order)


def merged(lines: Iterable[Line]) -> list[Line]:
    """Return a line for each draw of a method, with all that was measured of its blocks.

    Raises:
        ValueError: the lines of a draw hold different blocks.
    """
    known: dict[tuple[Any, ...], Line] = {}
    for given in lines:
        line = given | {"model": DIRECTORIES.get(given["model"], given["model"])}
        key = tuple(line[name] for name in ("model", "count", "method", "seed"))
        first = known.setdefault(key, line)
        if set(map(str, first["blocks"])) != set(map(str, line["blocks"])):
            raise ValueError(f"{DATA.name} has two choices of {', '.join(map(str, key))}: keep only lines of one")
        states: Line = {state: line[state] | first.get(state, {}) for state in STATES if state in line}
        for state, model in states.items():
            model["retained"] = (line[state]["retained"] or {}) | (model["retained"] or {}) or None
        known[key] = first | states
    return list(known.values())


def largest() -> dict[str, tuple[int, dict[str, list[Line]]]]:
    """Return by model the largest number of blocks, and the methods there."""
    return {model: (count, methods) for (model, count), methods in cells().items()}  # the last one is the largest


def title(model: str, count: int) -> str:
    """Return what a table calls a model without so many blocks."""
    name = TITLES.get(model, model)
    return f"{name}, {count} of {NUM_BLOCKS[model]}" if model in NUM_BLOCKS else f"{name}, {count}"


def value(line: Line, state: str, name: str) -> float | None:
    """Return one figure of a draw, copying as a share of the intact model's; None if it was not measured."""
    if state not in line:
        return None
    model = line[state]
    if name == "retained":
        worst = (model["retained"] or {}).get("worst")
        return None if worst is None else float(worst["mean"])
    if name == "copying":
        copying = model.get("copying")
        return float(copying["accuracy"] / copying["intact"]) if copying and copying["intact"] else None
    return float(model["divergence"]["mean"])


def error(line: Line, state: str, name: str) -> float:
    """Return the standard error of a figure of a draw over the documents or rows that it was measured on."""
    model = line[state]
    if name == "retained":
        return float(model["retained"]["worst"]["stderr"])
    if name == "copying":
        return float(model["copying"]["stderr"] / model["copying"]["intact"])
    return float(model["divergence"]["stderr"])


def values(lines: Lines, state: str, name: str) -> list[float]:
    """Return one figure of all draws that have it."""
    return [figure for line in lines if (figure := value(line, state, name)) is not None]


def figures(lines: Lines, name: str, draws: int, states: Sequence[str] = STATES, mark: str = "") -> str:
    """Show the means over draws from state to state, with half of their 95 % intervals; nothing if none is measured.

    Args:
        lines: The draws.
        name: The measure.
        draws: How many draws a figure has if nothing is said.
        states: The states to show.
        mark: A sign behind the figure of the healed models.
    """
    shown = []
    for state in states:
        if known := values(lines, state, name):
            mean = interval(known)
            text = MEASURES[name].show(mean.mean)
            if mean.high is not None and mean.high > mean.mean:
                text += f" ± {MEASURES[name].show(mean.high - mean.mean)}"
            text += f" ({len(known)})" if len(known) != draws else ""
            shown.append(text + (mark if state == "healed" else ""))
    return " → ".join(shown)


def draws_of(methods: Methods, name: str) -> int:
    """Return how many draws the best measured figure has; 0 if there is none."""
    return max((len(values(lines, state, name)) for lines in methods.values() for state in STATES), default=0)


def contrasts(
    methods: Methods, name: str, own: str = METHOD, state: str = "healed", rivals: Iterable[str] | None = None
) -> dict[str, Difference]:
    """Return by how much a method is better than each rival, with Holm's correction over the rivals.

    A difference is paired by draws: both methods read the same text. It has the error of the documents as well: paired
    where it is known by documents, and otherwise as if these were others for each model, which is the upper limit.
    Rivals with fewer than two such draws are left out.

    Args:
        methods: The lines by method.
        name: The measure.
        own: The method.
        state: Which models are compared.
        rivals: The other methods; by default all.
    """
    ours = {line["seed"]: line for line in methods.get(own, ()) if value(line, state, name) is not None}
    known = {}
    for rival in rivals or methods:
        theirs = [line for line in methods.get(rival, ()) if value(line, state, name) is not None]
        pairs = [(ours[line["seed"]], line) for line in theirs if line["seed"] in ours]
        if rival != own and len(pairs) > 1:
            paired = by_documents().get(_names(*pairs[0], state)) if name == "retained" else None
            known[rival] = paired or _by_draws(pairs, state, name)
    return corrected(known)


def by_documents() -> dict[tuple[Any, ...], Difference]:
    """Return how many points more one method retains than another over all draws, where it is known by documents."""
    path = DATA.with_name("choices_pairs.jsonl")
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines()) if path.exists() else ()
    known = {}
    for line in lines:
        model = {"model": DIRECTORIES.get(line["model"], line["model"]), "count": line["count"]}
        points = {end: 100 * line[end] for end in ("mean", "low", "high")}
        names = _names(line | model, {"method": line["rival"]}, line["state"])
        known[names] = Difference(**points, p=line["p"])
    return known


def _names(one: Line, other: Line, state: str) -> tuple[Any, ...]:
    """Return what identifies a comparison."""
    return one["model"], one["count"], one["method"], other["method"], state


def _by_draws(pairs: Sequence[tuple[Line, Line]], state: str, name: str) -> Difference:
    """Return by how much one method is better than another; the documents' error is as if they had different ones."""
    factor = MEASURES[name].factor
    figures = [[factor * (value(line, state, name) or 0.0) for line in pair] for pair in pairs]
    differences = [one - other for one, other in figures]
    spread = statistics.stdev(differences) / math.sqrt(len(differences))
    errors = [statistics.mean(error(line, state, name) for line in lines) for lines in zip(*pairs, strict=True)]
    both = [(spread, len(differences) - 1.0), (abs(factor) * math.hypot(*errors), math.inf)]
    return with_errors(statistics.mean(differences), both)


def signs(methods: Methods, name: str, own: str = METHOD) -> dict[str, str]:
    """Return a sign for each method that is significantly better or worse than a given one after healing."""
    return {rival: sign(difference, -1) for rival, difference in contrasts(methods, name, own).items()}


def sign(difference: Difference | None, factor: int = 1) -> str:
    """Return the sign of a significant difference, or with the factor -1 of its opposite; nothing for others."""
    return "" if difference is None or not difference.tells else " ▲" if factor * difference.mean > 0 else " ▼"


def judged_by(model: str, methods: Methods) -> list[str]:
    """Return by what methods are judged: by a model's own tasks, or by the panel and by divergence and copying."""
    return [name for name in (MEASURES if model in PANEL else ["retained"]) if draws_of(methods, name)]

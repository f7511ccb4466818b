"""The tables and the figure of "Which metric" and its evidence, from the results of `benchmarks/which_metric.py`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dressing import SMALL, standalone
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from layerimp.defaults import RANDOM
from layerimp.report.page.curves import ACCENT, INK, MUTED, PAPER, drawn
from layerimp.report.results.measures import LEVEL
from layerimp.report.statistics import interval

Values = dict[str, Any]
Table = tuple[list[str], list[list[str]]]
"""The head and the rows."""
RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "which_metric"
TITLES = {
    "starter": "The starter",
    "minilm-sst2": "MiniLM on SST-2",
    "smollm2-135m": "SmolLM2-135M",
    "gemma-3-270m": "Gemma 3 270M",
}
"""The models, in the order of the page."""
HEALER = "linear"
VARIATIONS = {"window": "`{}`, window", "greedy": "`{}`, greedy", "seams": "`{}`, seams too"}
"""How methods are called in tables that differ from the grid's, by part."""

SITES = {
    "avss": "the neurons (`mlp_act`, the default)",
    "avss-delta": "what the block adds (`block_delta`)",
    "avss-paper": "the stream after the block (`block_out`, the literal text)",
    "block-influence": "`block-influence`, for comparison",
}
"""What AVSS reads, by scorer."""
TRAINED = "distill"
STATES = ("unhealed", "healed", "trained")
WIDTH, ROW, TOP, LEFT, GAP = 860, 26, 54, 136, 8
"""In pixels: the figure, a row, and the room above and to the left of the cells and between two models."""


@dataclass(frozen=True)
class Method:
    """A way to choose what to remove: a scorer of one part.

    Attributes:
        name: The name in tables.
        scorer: The label of the scorer.
        unhealed: The part that has the unhealed models.
        healed: The part that has the healed models; None if there is none.
        searches: Whether the pruner scores again after each removal.
    """

    name: str
    scorer: str
    unhealed: Values
    healed: Values | None
    searches: bool = False

    def entry(self, removed: int, healer: str = "") -> Values | None:
        """Return what was found without a number of blocks; None if that was not measured."""
        part = self.healed if healer else self.unhealed
        rows = () if part is None else part["rows"]
        label = f"{self.scorer}+{healer}" if healer else self.scorer
        return next((row["entries"].get(label) for row in rows if row["removed"] == removed), None)

    def retained(self, removed: int, healer: str = "") -> float | None:
        """Return the mean of what is retained."""
        found = self.entry(removed, healer)
        return None if found is None else interval(found["values"]).mean

    @property
    def cost(self) -> float | None:
        """The cost of the scores of the intact model, in bare passes; None for a search, which scores repeatedly."""
        found: float | None = self.unhealed["cost"][self.scorer]
        return None if self.searches else found


def results(name: str) -> dict[str, Values]:
    """Return the results of a model, by part; none if the model is not measured."""
    file = RESULTS / f"{name}.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return {line.pop("part"): line for line in map(json.loads, lines)}


def methods(found: dict[str, Values]) -> list[Method]:
    """Return the methods of a model's parts."""
    grid, healed = found["unhealed"], found.get("healed")
    known = [Method(f"`{scorer}`", scorer, grid, healed) for scorer in grid["cost"]]
    for part, form in VARIATIONS.items():
        if part in found:
            known += [
                Method(form.format(one), one, found[part], found[part], part == "greedy") for one in found[part]["cost"]
            ]
    return known


def amounts(found: dict[str, Values]) -> dict[int, str]:
    """Return how the numbers of removed blocks are called, by number."""
    named = {}
    for row in found["unhealed"]["rows"]:
        count, share = row["removed"], row["share"]
        named[count] = f"{share:.0%}" if share else f"{count} block{'s' * (count > 1)}"
    return dict(sorted(named.items()))


def table(name: str) -> Table:
    """Return the table of a model: what each method retains, unhealed and healed, what may go, and what scores cost."""
    found = results(name)
    named = amounts(found)
    last = max(named)
    shown = _ordered(found, last)
    chance = [
        value
        for row in found.get("chance", {"rows": ()})["rows"]
        if row["removed"] == last
        for value in _by_draw(row["entries"][RANDOM])
    ]
    head = ["method", *named.values(), f"blocks at {LEVEL:.0%}", "above chance", "cost", "stable"]
    body = [
        [
            one.name,
            *(_change(one, count) for count in named),
            _removable(one),
            _above(one.entry(last), chance),
            *_scores(one, named),
        ]
        for one in shown
    ]
    return head, body


def _change(method: Method, removed: int) -> str:
    """Show what is retained without a number of blocks, unhealed and healed."""
    ends = [_share(method.entry(removed, healer)) for healer in ("", HEALER)]
    return " → ".join(end for end in ends if end) or "–"


def _share(found: Values | None) -> str:
    """Show what is retained, in per cent, and how it compares with the best baseline."""
    if found is None:
        return ""
    known = interval(found["values"])
    wide = "" if known.low is None or known.low == known.mean else f" ± {100 * (known.mean - known.low):.1f}"
    difference, p = found["to_baseline"] or (0.0, None)
    mark = "" if p is None or p >= 1 - LEVEL else " ▲" if difference > 0 else " ▼"
    return f"{100 * known.mean:.1f}{wide}{mark}"


def _removable(method: Method) -> str:
    """Show how many blocks may be removed, on average over the draws, unhealed and healed."""
    ends = []
    for part, label in ((method.unhealed, method.scorer), (method.healed, f"{method.scorer}+{HEALER}")):
        if part is not None and len(part["rows"]) > 1 and (one := part["removable"].get(label)):
            ends.append(f"{'≥ ' * one['at_least']}{interval(one['counts']).mean:.1f}")
    return " → ".join(ends) or "–"


def _above(found: Values | None, chance: Sequence[float]) -> str:
    """Show how many random choices of as many blocks retain less than the method's, as a mean over its draws."""
    if found is None or not chance:
        return "–"
    shares = [sum(other < value for other in chance) / len(chance) for value in _by_draw(found)]
    return f"{sum(shares) / len(shares):.0%}"


def _by_draw(found: Values) -> list[float]:
    """Return what each single model retains: the lower of likelihood and accuracy, which for a row is that of means."""
    kinds = [found[kind] for kind in ("likelihood", "accuracy") if found.get(kind)]
    return [min(pair) for pair in zip(*kinds or [found["values"]], strict=True)]


def _scores(method: Method, amounts: Iterable[int]) -> Iterator[str]:
    """Show what the scores cost, and how often two draws of text remove the same blocks, as a mean over the amounts."""
    yield "–" if method.cost is None else f"{method.cost:.1f}"
    shares = [one["stable"] for each in amounts if (one := method.entry(each)) and one["stable"] is not None]
    yield f"{sum(shares) / len(shares):.0%}" if shares else "–"


def trained(name: str) -> Table:
    """Return the table of the models that were trained: the same removals unhealed, healed and trained, by draw."""
    found = results(name)
    part, last = found["trained"], max(amounts(found))
    body = []
    for scorer in part["cost"]:
        values = [
            _values(one, last, label)
            for one, label in (
                (part, scorer),
                (found["healed"], f"{scorer}+{HEALER}"),
                (part, f"{scorer}+{TRAINED}"),
            )
        ]
        draws = min(map(len, values))
        body.append([f"`{scorer}`", *(", ".join(each[:draws]) for each in values)])
    return ["method", "unhealed", "healed", "trained"], body


def _values(part: Values, removed: int, label: str) -> list[str]:
    """Show what the model of each draw retains, in per cent."""
    (row,) = (row for row in part["rows"] if row["removed"] == removed)
    return [f"{100 * value:.1f}" for value in row["entries"][label]["values"]]


def tasks(name: str) -> Table:
    """Return a table of what the grid's methods retain of each task at the largest amount, unhealed and healed."""
    found = results(name)
    last, measured = max(amounts(found)), list(found["unhealed"]["documents"])
    body = []
    for one in _ordered(found, last):
        if one.unhealed is found["unhealed"]:
            ends = [one.entry(last, healer) or {"tasks": {}} for healer in ("", HEALER)]
            shares = [
                [f"{100 * share:.0f}" for end in ends if (share := end["tasks"].get(task)) is not None]
                for task in measured
            ]
            body.append([one.name, *(" → ".join(each) or "–" for each in shares)])
    return ["method", *(f"`{task}`" for task in measured)], body


def sites() -> Table:
    """Return a table of what AVSS retains by the site that it reads, and `block-influence`, at the largest amounts."""
    every = {title: results(name) for name, title in TITLES.items()}
    rows: dict[str, list[str]] = {name: [name] for name in SITES.values()}
    head = ["reads"]
    for title, found in every.items():
        last = max(amounts(found))
        head.append(f"{title}, without {amounts(found)[last]}")
        known = {method.scorer: method for method in methods(found) if method.unhealed is found["unhealed"]}
        for scorer, name in SITES.items():
            rows[name].append(_change(known[scorer], last))
    return head, list(rows.values())


def _ordered(found: dict[str, Values], last: int) -> list[Method]:
    """Return the methods of a model, from the one that retains most at the largest amount, healed or not."""
    return sorted(methods(found), key=lambda one: -max(one.retained(last) or 0, one.retained(last, HEALER) or 0))


def overview() -> dict[str, dict[str, Method]]:
    """Return the methods that choose whole blocks on every model, by name and model.

    The method that retains most at the largest amounts, healed and on average over the models, comes first.
    """
    known: dict[str, dict[str, Method]] = {}
    for model in TITLES:
        for one in methods(results(model)):
            if one.name != VARIATIONS["seams"].format(one.scorer):
                known.setdefault(one.name, {})[model] = one
    shared = {name: found for name, found in known.items() if len(found) == len(TITLES)}
    return dict(
        sorted(shared.items(), key=lambda item: -sum(_ends(model, one)[1] or 0 for model, one in item[1].items()))
    )


def summary() -> Table:
    """Return one table over all models: what each method retains at the largest amounts, and what its scores cost."""
    head = ["method", "cost", *(f"{title}, without {_largest(name)}" for name, title in TITLES.items())]
    body = []
    for method, found in overview().items():
        shown = [" → ".join(end for end in map(_share, _entries(model, one)) if end) for model, one in found.items()]
        costs = [one.cost for one in found.values() if one.cost is not None]
        low, high = (f"{end:.1f}" for end in (min(costs, default=0), max(costs, default=0)))
        body.append([method, "–" if not costs else low if low == high else f"{low} to {high}", *shown])
    return head, body


def _largest(model: str) -> str:
    """Return the largest amount in words: so many of so many blocks."""
    found = results(model)
    return f"{max(amounts(found))} of {found['unhealed']['num_blocks']}"


def _entries(model: str, method: Method) -> list[Values | None]:
    """Return what was found of a method at the largest amount: unhealed, healed and trained."""
    found = results(model)
    last, part = max(amounts(found)), found["trained"]
    trained = method.scorer in part["cost"] and method.name == f"`{method.scorer}`"
    return [
        method.entry(last),
        method.entry(last, HEALER),
        replace(method, healed=part).entry(last, TRAINED) if trained else None,
    ]


def _ends(model: str, method: Method) -> list[float | None]:
    """Return what a method retains at the largest amount on average: unhealed, healed and trained."""
    return [None if entry is None else interval(entry["values"]).mean for entry in _entries(model, method)]


def picture() -> str:
    """Draw what each method retains of each model as a map: the fuller a cell, the more is retained."""
    shown = overview()
    height = TOP + ROW * len(shown)
    figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72)
    axes = figure.add_axes((LEFT / WIDTH, 0, 1 - LEFT / WIDTH, 1 - TOP / height))
    axes.set(xlim=(0, WIDTH - LEFT), ylim=(ROW * len(shown), 0))
    axes.set_axis_off()
    panel = (WIDTH - LEFT + GAP) / len(TITLES)
    cell = (panel - GAP) / len(STATES)
    words: dict[str, Any] = {"fontsize": SMALL, "va": "center", "clip_on": False}
    for n, model in enumerate(TITLES):
        axes.text(
            n * panel + (panel - GAP) / 2, -40, f"{TITLES[model]}, {_largest(model)}", color=INK, ha="center", **words
        )
        for m, state in enumerate(STATES):
            axes.text(n * panel + (m + 0.5) * cell, -16, state, color=MUTED, ha="center", **words)
    for row, (method, found) in enumerate(shown.items()):
        axes.text(-8, (row + 0.5) * ROW, method.replace("`", ""), color=INK, ha="right", **words)
        for n, (model, one) in enumerate(found.items()):
            for m, value in enumerate(_ends(model, one)):
                _cell(axes, (n * panel + m * cell, row * ROW), (cell, ROW), value)
    return standalone(str(drawn(figure, "which-metric", "What is retained by method and model, in per cent")))


def _cell(axes: Axes, corner: tuple[float, float], size: tuple[float, float], value: float | None) -> None:
    """Draw a cell with what is retained, in per cent; a cell without a value stays empty."""
    if value is None:
        return
    shown = max(value, 0.0)
    axes.add_patch(Rectangle(corner, *size, facecolor=ACCENT, alpha=0.75 * shown, edgecolor=PAPER, linewidth=2))
    place = corner[0] + size[0] / 2, corner[1] + size[1] / 2
    axes.text(*place, f"{100 * shown:.0f}", color=INK, fontsize=SMALL, ha="center", va="center")

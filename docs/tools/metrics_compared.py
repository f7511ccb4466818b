"""The tables and the figure of the page "Which metric", from the results of `benchmarks/which_metric.py`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dressing import SMALL, dress, standalone
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from layerimp.defaults import RANDOM
from layerimp.report.page.curves import ACCENT, INK, LINE, MUTED, PAPER, drawn
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
NAMED = ("avss", "block-influence", "random")
"""The methods that the figure names, besides the best one."""
WIDTH, PANEL, TOP = 760, 270, 34
"""In pixels: the figure, the height of a panel with its words, and the room for the key above all panels."""
STYLES: dict[str, dict[str, Any]] = {
    "unhealed": {"marker": "o", "color": MUTED, "markerfacecolor": PAPER, "markersize": 6},
    "healed": {"marker": "s", "color": ACCENT, "markersize": 5, "markeredgecolor": PAPER},
    "trained": {"marker": "*", "color": INK, "markersize": 10, "markeredgecolor": PAPER},
}


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


def picture() -> str:
    """Draw what each method retains at the largest amount against the cost of its scores, a panel for each model."""
    known = {name: found for name in TITLES if (found := results(name))}
    height = TOP + PANEL * math.ceil(len(known) / 2)
    figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72)
    for n, (name, found) in enumerate(known.items()):
        left, down = 50 + (n % 2) * WIDTH / 2, TOP + 30 + PANEL * (n // 2)
        axes = figure.add_axes(
            (left / WIDTH, 1 - (down + PANEL - 85) / height, (WIDTH / 2 - 64) / WIDTH, (PANEL - 85) / height)
        )
        last = max(amounts(found))
        _points(axes, found, last)
        axes.set_xscale("symlog", linthresh=1, linscale=1.5)
        axes.set_xticks([0, 1, 3, 10, 30], ["0", "1", "3", "10", "30"])
        axes.set_xticks([], minor=True)
        axes.set(xlim=(-0.1, 150), ylim=(-0.03, 1.03))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        blocks = found["unhealed"]["num_blocks"]
        dress(axes, "cost of the scores, in bare passes", f"{TITLES[name]}, without {last} of {blocks} blocks")
    styles = {
        name: style
        for name, style in STYLES.items()
        if name != "trained" or any("trained" in one for one in known.values())
    }
    _key(figure, 1 - TOP / 2 / height, styles)
    return standalone(
        str(drawn(figure, "which-metric", "What is retained by method, unhealed and healed, and its cost"))
    )


def _points(axes: Axes, found: dict[str, Values], last: int) -> None:
    """Draw a model's methods: unhealed, healed and trained, with lines that join what belongs together."""
    trained = found.get("trained", {"cost": ()})
    named = {}
    for one in methods(found):
        if one.cost is None:
            continue
        measured = {"unhealed": one.retained(last), "healed": one.retained(last, HEALER)}
        if one.unhealed is found["unhealed"] and one.scorer in trained["cost"]:
            measured["trained"] = replace(one, healed=trained).retained(last, TRAINED)
        points = {name: value for name, value in measured.items() if value is not None}
        axes.plot([one.cost] * len(points), list(points.values()), color=LINE, linewidth=1, zorder=1)
        for name, value in points.items():
            axes.plot([one.cost], [value], linestyle="", **STYLES[name])
        named[one.name.replace("`", "")] = one.cost, max(points.values())
    best = max(named, key=lambda name: named[name][1])
    shown = [name for name in dict.fromkeys([best, *NAMED]) if name in named]
    places = apart([named[name][1] for name in shown])
    for name, place in zip(shown, places, strict=True):
        right = named[name][0] == 0  # nothing costs between 0 and 1, which leaves room on either side
        how: dict[str, Any] = {"textcoords": ("offset points", "data"), "va": "center", "color": INK, "fontsize": SMALL}
        axes.annotate(name, named[name], (9 if right else -9, place), ha="left" if right else "right", **how)


def apart(values: Sequence[float], least: float = 0.075) -> list[float]:
    """Return places for labels that keep their order from the top, and are never closer than `least`."""
    found: dict[int, float] = {}
    for n in sorted(range(len(values)), key=lambda n: -values[n]):
        found[n] = min(values[n], min(found.values(), default=math.inf) - least)
    return [found[n] for n in range(len(values))]


def _key(figure: Figure, up: float, styles: Mapping[str, dict[str, Any]]) -> None:
    """Say which point is what."""
    for n, (name, style) in enumerate(styles.items()):
        across = (58 + 110 * n) / WIDTH
        figure.add_artist(Line2D([across], [up], linestyle="", **style))
        figure.text(across + 10 / WIDTH, up, name, fontsize=SMALL, color=MUTED, va="center_baseline")

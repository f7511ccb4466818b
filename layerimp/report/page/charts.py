"""The page's tables with colours: what each cell says, and how full it is."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.stats import rankdata

from layerimp.pruner import counted
from layerimp.report.results.comparison import ModelResults
from layerimp.report.results.measures import Difference, Interval
from layerimp.report.results.models import Amount, Removal, Stability
from layerimp.report.results.rows import Row
from layerimp.report.retained import LEVELS
from layerimp.report.words import MINUS, always, amount_name, changed, plus_minus, removable_at


@dataclass(frozen=True)
class Cell:
    """A cell of a table with colours.

    Attributes:
        text: The text of the cell; its second line is smaller.
        share: The length of the cell's bar, the area of its dot or the fullness of its colour, from 0 to 1; below 0 in
            the contrary colour. None leaves it empty.
        span: The ends of the share's interval; None without one.
        title: What the cell shows in full.
        marked: Whether the cell is set apart.
    """

    text: str = ""
    share: float | None = None
    span: tuple[float, float] | None = None
    title: str = ""
    marked: bool = False

    @classmethod
    def bar(cls, value: Interval, most: float, text: str, *, certain: bool = True, marked: bool = False) -> Cell:
        """Return a cell with a bar, which is full at `most`. What is a bound rather than certain has no interval."""
        known = certain and value.low is not None and value.high is not None
        share, low, high = (min(max((end or 0.0) / most, 0.0), 1.0) for end in (value.mean, value.low, value.high))
        return cls(text, share, (low, high) if known else None, marked=marked)


@dataclass(frozen=True)
class Chart:
    """A table with colours.

    Attributes:
        columns: The names of the columns; the second line of a name is smaller.
        rows: The cells, by the label of the row.
        title: What tells the chart from others of its kind; empty if it is alone.
        under: What stands beneath the labels of rows.
    """

    columns: Sequence[str]
    rows: Mapping[str, Sequence[Cell]]
    title: str = ""
    under: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Charts:
    """The charts of one model's scores and choices.

    Attributes:
        model: The results for the model.
    """

    model: ModelResults

    @cached_property
    def pruners(self) -> list[str]:
        """The labels of the pruners of which something is known."""
        return list(dict.fromkeys(pruner for pruner, _, _ in self._choices))

    @cached_property
    def _choices(self) -> dict[tuple[str, Amount, str], Removal]:
        """What was removed, without healed models that lack the same as the unhealed ones."""
        every = self.model.removed

        def lacks(removal: Removal | None) -> set[tuple[int, ...]]:
            return set() if removal is None else {tuple(model.blocks) for model in removal.models}

        return {
            (pruner, amount, label): removal
            for (pruner, amount, label), removal in every.items()
            if not removal.healer or lacks(removal) != lacks(every.get((pruner, amount, removal.scorer)))
        }

    def of_pruner(self, pruner: str) -> str:
        """Return the label of a pruner where there are several; else empty."""
        return pruner if len(self.pruners) > 1 else ""

    def _amounts(self, pruner: str) -> dict[Amount, list[int]]:
        """Return how many blocks go at each amount, the fewest first, as it may differ between choices."""
        counts: dict[Amount, set[int]] = {}
        for (of, amount, _), removal in self._choices.items():
            if of == pruner:
                counts.setdefault(amount, set()).add(len(removal.models[0].blocks))
        return dict(sorted(((amount, sorted(each)) for amount, each in counts.items()), key=lambda item: item[1][-1]))

    @cached_property
    def removable(self) -> list[tuple[Chart, list[int]]]:
        """How many blocks may go at each level, with the numbers that were measured, for each pruner."""
        charts = []
        for pruner, here in self.model.by_removable.items():
            measured = sorted({count for each in here for count in each.measured})
            rows = {
                each.label: [
                    Cell.bar(level.mean, measured[-1], removable_at(level), certain=not level.at_least)
                    for level in each.levels.values()
                ]
                for each in here
            }
            charts.append(
                (Chart([f"{level:.0%} retained" for level in LEVELS], rows, self.of_pruner(pruner)), measured)
            )
        return charts

    @cached_property
    def importance(self) -> Chart:
        """The ranks that each scorer gives to the blocks."""
        rows, blocks = {}, self.model.blocks
        for scorer, scored in self.model.scored.items():
            ranks = np.mean([(rankdata(scores) - 1) / max(len(blocks) - 1, 1) for scores in scored.on(blocks)], axis=0)
            means = dict(zip(scored.blocks, scored.means, strict=True))
            rows[scorer] = [
                Cell(
                    share=float(rank),
                    title=f"{scorer}, block {block}: score {plus_minus(means[block])}, rank {rank:.2f}",
                )
                for block, rank in zip(blocks, ranks, strict=True)
            ]
        return Chart(list(map(str, blocks)), rows)

    @cached_property
    def agreement(self) -> Chart | None:
        """Kendall's tau between scorers, and between the repeats of each; None where none is known."""
        scored = self.model.scored
        rows = {
            a: [_tau(scored[a].tau if a == b else self.model.agreement.get((a, b)), f"{a} and {b}") for b in scored]
            for a in scored
        }
        return Chart(list(scored), rows) if _known(rows) else None

    @cached_property
    def stability(self) -> list[Chart]:
        """How much the removed sets of the repeats agree, for each pruner."""
        charts = []
        for pruner in self.pruners:
            amounts = list(self._amounts(pruner))
            rows = {
                scorer: [
                    _stability(removal.stability if removal else None)
                    for removal in (self._choices.get((pruner, amount, scorer)) for amount in amounts)
                ]
                for scorer in self.model.scored
            }
            if _known(rows):
                charts.append(Chart([amount_name(amount) for amount in amounts], rows, self.of_pruner(pruner)))
        return charts

    @cached_property
    def cost(self) -> Chart | None:
        """What each scorer costs in bare passes, on a logarithmic scale; None where no scorer was timed."""
        costs = {scorer: scored.cost for scorer, scored in self.model.scored.items()}
        known = [cost for cost in costs.values() if cost]
        low, high = math.log10(min([1.0, *known])), math.log10(max([10.0, *known]))
        rows = {
            scorer: [
                Cell("–" if cost is None else f"{cost:.3g}", (math.log10(cost) - low) / (high - low) if cost else None)
            ]
            for scorer, cost in sorted(costs.items(), key=lambda item: (item[1] is None, item[1] or 0.0))
        }
        return Chart(["bare passes"], rows) if known else None

    @cached_property
    def removed(self) -> list[Chart]:
        """Which blocks go, for each pruner and amount."""
        return [
            self._removed_at(pruner, amount, counts)
            for pruner in self.pruners
            for amount, counts in self._amounts(pruner).items()
        ]

    def _removed_at(self, pruner: str, amount: Amount, counts: Sequence[int]) -> Chart:
        blocks = range(self.model.num_blocks)
        rows, under = {}, {}
        for (of, at, label), removal in self._choices.items():
            if (of, at) == (pruner, amount):
                models = removal.models
                times = Counter(block for model in models for block in model.blocks)
                shares = [times[block] / len(models) for block in blocks]
                rows[label] = [
                    Cell(share=share, title=f"{label}, block {block}: {share:.0%} removed" if share else "")
                    for block, share in enumerate(shares)
                ]
                under[label] = always([model.blocks for model in models])
        least = f"{counts[0]} to " if len(counts) > 1 else ""
        number = "" if isinstance(amount, int) else f": {least}{counted(counts[-1])}"
        title = f"{amount_name(amount)}{number} of {self.model.num_blocks}"
        title += f", {pruner}" if self.of_pruner(pruner) else ""
        return Chart([str(block) for block in blocks], rows, title, under)


@dataclass(frozen=True)
class Contrast:
    """A difference, as a cell shows it: the verdict is `better`, `worse`, `equal`, or `unknown`."""

    text: str
    span: str
    verdict: str


def contrast_of(difference: Difference | None, row: Row) -> Contrast | None:
    """Return a difference as a cell shows it; None if there is none."""
    if difference is None:
        return None

    def written(value: float) -> str:
        if row.original is None:
            return signed(value * 100, "+.1f")
        return changed(value, factor=row.factors)

    if math.isnan(difference.mean):
        return Contrast("∞ − ∞", "", "unknown")
    better = (difference.mean > 0) is row.higher_is_better
    verdict = ("better" if better else "worse") if difference.tells else "equal"
    if difference.low is None or difference.high is None:  # an infinite one may be significant, and has no interval
        return Contrast(written(difference.mean), "", verdict if difference.tells else "unknown")
    return Contrast(written(difference.mean), f"{written(difference.low)} to {written(difference.high)}", verdict)


def signed(value: float, form: str) -> str:
    """Return a number whose minus sign is as wide as its plus sign."""
    return f"{value:{form}}".replace("-", MINUS)


def _stability(stability: Stability | None) -> Cell:
    if stability is None:
        return Cell("–")
    return Cell(f"{stability.jaccard:.2f}\n{stability.same:.0%} equal", stability.jaccard)


def _tau(tau: float | None, pair: str) -> Cell:
    text = "–" if tau is None else signed(tau, ".2f")
    return Cell(text, tau, title=f"{pair}: {text}")


def _known(rows: Mapping[str, Sequence[Cell]]) -> bool:
    return any(cell.share is not None for cells in rows.values() for cell in cells)

"""Compares models pruned by whole blocks with models pruned by blocks and seams, by document; for `seams_worth`."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from layerimp.evaluator import Likelihood, Metric
from layerimp.report.paired_bootstrap import Estimate, difference
from layerimp.report.statistics import Difference, corrected
from layerimp.report.words import ranges
from layerimp.steps import Cuts, Step

CUTS: tuple[Cuts, Cuts] = ("blocks", "all")
"""The two kinds of cuts: the second is compared with the first."""
Line = dict[str, Any]
"""The result for one model: draw, method, kind of cuts, count, healer, steps and outcome."""


@dataclass(frozen=True)
class Pair:
    """Models with whole blocks removed, and with all cuts, in the same draws.

    Attributes:
        lines: For each draw the steps and the outcomes of both.
        healer: The healer.
        apart: The difference of the losses, in nats per token.
    """

    lines: Sequence[tuple[tuple[list[Step], dict[str, Any]], ...]]
    healer: str
    apart: Difference

    @classmethod
    def of(cls, lines: Sequence[Line], method: str, count: str, healer: str) -> Pair | None:
        """Return the results of a method at a count; None if a model cannot be made, or if there are no results."""
        place = method, count, healer
        mine = [line for line in lines if (line["method"], line["count"], line["healer"]) == place]
        by_place = {(line["draw"], line["cuts"]): (line["steps"], line["outcome"]) for line in mine}
        draws = sorted(draw for draw, cuts in by_place if cuts == CUTS[0] and (draw, CUTS[1]) in by_place)
        pairs = [tuple(by_place[draw, cuts] for cuts in CUTS) for draw in draws]
        if not pairs or any("error" in outcome for pair in pairs for _, outcome in pair):
            return None
        blocks, seams = (_estimate([pair[which][1] for pair in pairs]) for which in (0, 1))
        return cls(pairs, healer, difference(seams, blocks, paired=True))

    def perplexity(self, which: int) -> float:
        """The geometric mean over the draws."""
        losses = (sum(pair[which][1]["totals"]) / sum(pair[which][1]["counts"]) for pair in self.lines)
        return math.exp(statistics.fmean(losses))

    def cost(self, name: str, how: str) -> str:
        """Show a cost with blocks and with all cuts, as means over the draws; empty for healed models."""
        if self.healer:
            return ""
        means = [statistics.fmean(pair[which][1][name] for pair in self.lines) for which in (0, 1)]
        return f"{means[0]:{how}} → {means[1]:{how}}"

    def removed(self) -> str:
        """Show what was removed with all cuts, and in how many draws."""
        went = [ranges(pair[1][0]) for pair in self.lines]
        return "; ".join(f"{gone} ({went.count(gone)})" for gone in dict.fromkeys(went)) if not self.healer else ""


def _estimate(outcomes: Sequence[Mapping[str, Any]]) -> Estimate:
    """The loss per token, by draw, and on resamples of the documents."""
    likelihoods = [
        Likelihood(tuple(-t for t in outcome["totals"]), tuple(map(float, outcome["counts"]))) for outcome in outcomes
    ]
    return Estimate.of(
        [Metric("held-out", "loss", likelihood.loss, likelihood=likelihood) for likelihood in likelihoods]
    )


HEAD = "method", "removed", "healer", "blocks", "all cuts", "nats per token (95 %)", "all cuts are"
"""What the cells of a row are."""


def rows(
    methods: Sequence[str], counts: Sequence[str], healers: Sequence[str], lines: Sequence[Line]
) -> Iterator[tuple[Pair | None, tuple[str, ...]]]:
    """Yield the comparisons of one model, each with its cells; a comparison that failed is None."""
    known = {(line["method"], line["count"], line["healer"]) for line in lines}
    places = [place for place in itertools.product(methods, counts, healers) if place in known]
    pairs = {place: Pair.of(lines, *place) for place in places}
    among_all = corrected({place: pair.apart for place, pair in pairs.items() if pair})
    for (method, count, healer), pair in pairs.items():
        if pair is None:
            yield None, (method, count, healer or "none", "failed")
            continue
        apart = pair.apart
        ends = "" if apart.low is None or apart.high is None else f" ({apart.low:+.3f} to {apart.high:+.3f})"
        verdict = _verdict(apart, among_all[method, count, healer])
        losses = f"{pair.perplexity(0):.2f}", f"{pair.perplexity(1):.2f}", f"{apart.mean:+.3f}{ends}"
        yield pair, (method, count, healer or "none", *losses, verdict)


def show(methods: Sequence[str], counts: Sequence[str], healers: Sequence[str], lines: Sequence[Line]) -> None:
    """Print the comparisons of one model."""
    table = Table(*HEAD, "parameters", "cache/token", "latency", "what went, of all cuts (draws)")
    for pair, cells in rows(methods, counts, healers, lines):
        costs = (("parameters", ",.0f"), ("cache", ",.0f"), ("latency", ".2f")) if pair else ()
        table.add_row(*cells, *(pair.cost(*cost) for cost in costs if pair), pair.removed() if pair else "")
    Console(width=210).print(table)


def _verdict(apart: Difference, among_all: Difference) -> str:
    """Tell whether seams are significantly better or worse, with a star if this holds among all comparisons."""
    if not apart.tells or not apart.mean:
        return "the same" if apart.mean == 0 and apart.p == 1 else "not told apart"
    star = "*" if among_all.tells else ""
    return ("better" if apart.mean < 0 else "worse") + star

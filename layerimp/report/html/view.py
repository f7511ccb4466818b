"""What the report says of one model, in words and tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from layerimp.defaults import RANDOM
from layerimp.report.findings import Contender, Entry, ModelFindings, Row
from layerimp.report.html.format import MINUS, listed, signed, unbroken
from layerimp.report.html.svg import Look
from layerimp.report.results import Findings
from layerimp.report.statistics import Difference, Interval, interval
from layerimp.report.tables import PaperTable, both_shares, number, paper_tables, removables

_MOST = 700.0  # of which floating point has an exponential


@dataclass(frozen=True)
class Contrast:
    """A difference, as a cell says it: the verdict is `better`, `worse`, `equal`, or `unknown`."""

    text: str
    span: str
    verdict: str


@dataclass(frozen=True)
class Line:
    """A scorer in a table of differences."""

    entry: Entry
    to_random: Contrast | None
    to_baseline: Contrast | None


@dataclass(frozen=True)
class HealedLine:
    """A healed contender, beside what it was before.

    Attributes:
        entry: What is retained by what is healed.
        before: What is retained by the same models unhealed; None where that is not known.
        gain: The difference of the two.
        recovered: The share of the lost loss, or of a classifier's lost accuracy, that came back, over the repeats;
            None where it is not known.
    """

    entry: Entry
    before: Entry | None
    gain: Contrast | None
    recovered: Interval | None


@dataclass(frozen=True)
class Place:
    """A row of a table, from best to worst.

    Attributes:
        row: The row.
        ratio: Its ratio in words.
        parameters: The share of the parameters that goes, in words.
        name: Its whole place in words.
        leaders: The labels of the best.
        lines: All of it.
        random: The label of what the first leader has to beat to have shown anything; None where that is missing.
        baseline: The label of the best baseline, which the first leader is compared with; None without one.
    """

    row: Row
    ratio: str
    parameters: str
    name: str
    leaders: Sequence[str]
    lines: Sequence[Line]
    random: str | None
    baseline: str | None

    @property
    def compared(self) -> bool:
        """Whether there is more than one to compare."""
        return len(self.lines) > 1

    @property
    def who(self) -> str:
        """The leaders in words."""
        return "all scorers" if 1 < len(self.leaders) == len(self.lines) else listed(self.leaders)


@dataclass(frozen=True)
class View:
    """What the page says of one model.

    Attributes:
        found: What the comparison shows.
        model: What it shows of this model.
        name: Tells its figures from those of others.
        styles: How scorers are drawn.
    """

    found: Findings
    model: ModelFindings
    name: str
    styles: Mapping[str, Look]

    @cached_property
    def pruners(self) -> list[str]:
        """The labels of the pruners of which something is known."""
        return list(dict.fromkeys(pruner for pruner, _, _ in self.model.pruned))

    def counts(self, pruner: str) -> dict[float, int]:
        """How many blocks go at each ratio, in order."""
        counts = {r: len(found[0].blocks) for (p, r, _), found in self.model.pruned.items() if p == pruner}
        return dict(sorted(counts.items(), key=lambda item: item[1]))

    @cached_property
    def places(self) -> list[Place]:
        """What is retained on average."""
        return [self._place(row) for row in self.model.headlines]

    @cached_property
    def tasks(self) -> list[Place]:
        """All single metrics."""
        return [self._place(row) for row in self.model.rows if row not in self.model.headlines]

    def _place(self, row: Row) -> Place:
        ratio, (blocks, parameters) = unbroken(row.ratio), both_shares(row)
        name = f"{blocks}, {parameters}" + (f", with {row.pruner}" if len(self.pruners) > 1 else "")
        better = -1 if row.higher_is_better else 1
        entries = sorted(row.entries.values(), key=lambda one: better * one.value.mean)
        leaders = [one.label for one in entries if one.value.mean == entries[0].value.mean]
        lines = [Line(one, _contrast(one.to_random, row), _contrast(one.to_baseline, row)) for one in entries]
        healer = entries[0].contender.healer
        chance = Contender(RANDOM, healer).label
        random = chance if chance in row.entries else None
        return Place(row, ratio, parameters, name, leaders, lines, random, row.baselines.get(healer))

    @cached_property
    def healing(self) -> list[tuple[Place, list[HealedLine]]]:
        """What healing brought, wherever it is known what is retained."""
        found = [(place, [self._healed(place.row, line.entry) for line in place.lines]) for place in self.places]
        return [(place, [line for line in lines if line.entry.contender.healer]) for place, lines in found]

    def _healed(self, row: Row, entry: Entry) -> HealedLine:
        models = self.model.healed.get((row.pruner, row.ratio, entry.contender), ())
        shares = [one.healing["recovered"] for one in models if one.healing]
        known = [share for share in shares if share is not None]
        before = row.entries.get(entry.contender.scorer)
        return HealedLine(entry, before, _contrast(entry.to_unhealed, row), interval(known) if known else None)

    @cached_property
    def removable(self) -> list[PaperTable]:
        """How many blocks may go, by pruner."""
        return removables(replace(self.found, models={self.model.label: self.model}))

    @cached_property
    def answers(self) -> dict[str, list[Place]]:
        """What is retained on average, by pruner."""
        found: dict[str, list[Place]] = {}
        for place in self.places:
            found.setdefault(place.row.pruner, []).append(place)
        return found

    @cached_property
    def tables(self) -> list[tuple[PaperTable, str]]:
        """The paper's tables without the model's name, and what was removed where all rows say the same."""
        found = []
        for table in paper_tables(replace(self.found, models={"": self.model})):
            removed = {row[-1].text for row in table.rows}
            end = -1 if len(removed) == 1 else None
            head = [*table.head[:1], *table.head[2:end]]
            rows = [[*row[:1], *row[2:end]] for row in table.rows]
            found.append((PaperTable(table.title, head, rows), removed.pop() if end else ""))
        return found


def _contrast(found: Difference | None, row: Row) -> Contrast | None:
    if found is None:
        return None

    def said(value: float) -> str:
        if row.original is None:
            return signed(value * 100, "+.1f")
        if row.factors:
            return f"×{number(math.exp(value), 3)}" if value < _MOST else "×∞"
        return ("+" if value > 0 else "") + number(value).replace("-", MINUS)

    if math.isnan(found.mean):
        return Contrast("∞ − ∞", "", "unknown")
    verdict = ("better" if (found.mean > 0) is row.higher_is_better else "worse") if found.tells else "equal"
    if found.low is None or found.high is None:  # an infinite difference may be significant, and has no interval
        return Contrast(said(found.mean), "", verdict if found.tells else "unknown")
    return Contrast(said(found.mean), f"{said(found.low)} to {said(found.high)}", verdict)

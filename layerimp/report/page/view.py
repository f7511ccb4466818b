"""What the page says of one model. Of the results, the page knows what it reads here and in the charts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from layerimp._table import Table
from layerimp.defaults import RANDOM
from layerimp.pruner import counted
from layerimp.report.document import Results
from layerimp.report.page.charts import MINUS, Cell, Chart, Charts, signed
from layerimp.report.page.curves import Lines, Look
from layerimp.report.results.comparison import ModelResults
from layerimp.report.results.contenders import Contender
from layerimp.report.results.measures import Difference, Interval
from layerimp.report.results.rows import Entry, Row
from layerimp.report.statistics.intervals import interval, times_stderr
from layerimp.report.tables.comparison import fidelity, quality
from layerimp.report.tables.distances import Continued, continued
from layerimp.report.tables.models import remarks
from layerimp.report.tables.numbers import both_shares, measured_on, named, number, percent
from layerimp.report.words import always

_MOST = 700.0  # of which floating point has an exponential


@dataclass(frozen=True)
class Contrast:
    """A difference, as a cell shows it: the verdict is `better`, `worse`, `equal`, or `unknown`."""

    text: str
    span: str
    verdict: str


@dataclass(frozen=True)
class Line:
    """A contender at one amount.

    Attributes:
        contender: The scorer, and the healer if there is one.
        value: The mean of the metric, with its interval over the repeats; of what is retained over the documents, where
            the repeats do not differ.
        marked: Whether no other beats it.
        random: The label of random, healed alike, which is the least to be beaten; None without it.
        baseline: The label of the best baseline, healed alike; None without one.
        to_random: The difference to random; None without it, and for random itself.
        to_baseline: The difference to the best baseline; None without one, and for that baseline itself.
        removed: The blocks that go, if all repeats remove the same; else empty.
        before: What the same models retain unhealed; None if that is not known.
        gain: The difference to the same models unhealed; None for what is not healed.
        recovered: The share of the lost loss, or of a classifier's lost accuracy, that came back, over the repeats;
            None where it is not known.
    """

    contender: Contender
    value: Interval
    marked: bool
    random: str | None
    baseline: str | None
    to_random: Contrast | None
    to_baseline: Contrast | None
    removed: str
    before: float | None
    gain: Contrast | None
    recovered: Interval | None

    @property
    def label(self) -> str:
        """The name in tables."""
        return self.contender.label


@dataclass(frozen=True)
class Place:
    """A metric, or what is retained, at one amount.

    Attributes:
        row: The row of the results.
        amount: What was asked to go, such as `25%` or `3 blocks`.
        asked: The same as a part of the model, such as `25% of blocks`.
        parameters: The share of the parameters that goes, in words.
        pruner: The label of the pruner; empty if there is only one.
        lines: The contenders, from best to worst.
    """

    row: Row
    amount: str
    asked: str
    parameters: str
    pruner: str
    lines: Sequence[Line]

    @property
    def leaders(self) -> list[str]:
        """The labels of the best, which are several if they are equal."""
        return [line.label for line in self.lines if line.value.mean == self.lines[0].value.mean]

    @property
    def compared(self) -> bool:
        """Whether there is more than one to compare."""
        return len(self.lines) > 1

    @property
    def rivals(self) -> list[str]:
        """The differences of the lines that say something: only one of them where random is the best baseline."""
        to_random = any(line.to_random for line in self.lines)
        to_others = any(line.to_baseline and line.baseline != line.random for line in self.lines)
        return ["to_random"] * to_random + ["to_baseline"] * to_others

    def of(self, scorer: str) -> list[Line]:
        """Return the lines of one scorer, unhealed and then healed."""
        own = [line for line in self.lines if line.contender.scorer == scorer]
        return sorted(own, key=lambda line: bool(line.contender.healer))


@dataclass(frozen=True)
class Lead:
    """What the first line of each place is worth beside random and the best baseline.

    Attributes:
        amounts: The amounts at which each of the leaders leads, by their labels.
        above: For each difference that was taken anywhere, the amounts at which the first line is significantly better.
        below: The same where it is significantly worse.
        clear: The amounts at which the leader is significantly better than all others.
        behind: Whether a baseline leads everywhere.
        unknown: Whether nowhere is known enough to say more.
    """

    amounts: Mapping[tuple[str, ...], Sequence[str]]
    above: Mapping[str, tuple[str, ...]]
    below: Mapping[str, tuple[str, ...]]
    clear: Sequence[str]
    behind: bool
    unknown: bool

    @classmethod
    def of(cls, places: Sequence[Place], scorer: str = "") -> Lead:
        """Sum up the places for their leaders, or for one scorer."""
        amounts: dict[tuple[str, ...], list[str]] = {}
        for place in places:
            amounts.setdefault(tuple(place.leaders), []).append(place.amount)
        firsts = [(place.of(scorer) if scorer else place.lines)[0] for place in places]
        verdicts = [
            {"to_random": _verdict(line.to_random), "to_baseline": _verdict(line.to_baseline)} for line in firsts
        ]
        rivals = [rival for rival in verdicts[0] if any(rival in place.rivals for place in places)]

        def amounts_of(rival: str, verdict: str) -> tuple[str, ...]:
            return tuple(place.amount for place, each in zip(places, verdicts, strict=True) if each[rival] == verdict)

        above = {rival: amounts_of(rival, "better") for rival in rivals}
        below = {rival: amounts_of(rival, "worse") for rival in rivals}
        unknown = all("unknown" in each.values() and not {"better", "equal"} & set(each.values()) for each in verdicts)
        behind = all(line.baseline in place.leaders for place, line in zip(places, firsts, strict=True))
        clear = [place.amount for place, line in zip(places, firsts, strict=True) if place.row.best == [line.label]]
        return cls(amounts, above, below, clear, behind, unknown)


@dataclass(frozen=True)
class View:
    """What the page says of one model.

    Attributes:
        results: The results of the comparison.
        model: Those of this model.
        name: The name that tells its pictures from those of other models.
        looks: How the contenders are drawn.
    """

    results: Results
    model: ModelResults
    name: str
    looks: Mapping[str, Look]

    @cached_property
    def charts(self) -> Charts:
        """The charts of scores and choices."""
        return Charts(self.model)

    @cached_property
    def subject(self) -> str:
        """The only scorer that was asked for; empty if several are compared."""
        return subject(self.results)

    @cached_property
    def measured_on(self) -> str:
        """The tasks, with their numbers of documents; empty if nothing was measured."""
        return measured_on(self.model)

    @cached_property
    def places(self) -> list[Place]:
        """What is retained on average."""
        return [self._place(row) for row in self.model.headlines]

    @cached_property
    def tasks(self) -> list[Place]:
        """All single metrics."""
        return [self._place(row) for row in self.model.rows if row not in self.model.headlines]

    @cached_property
    def answers(self) -> dict[str, list[Place]]:
        """What is retained on average, by pruner."""
        answers: dict[str, list[Place]] = {}
        for place in self.places:
            answers.setdefault(place.row.pruner, []).append(place)
        return answers

    def own(self, places: Sequence[Place]) -> list[Place]:
        """Return the places of the only scorer that was asked for; none if several are compared."""
        return [place for place in places if self.subject and place.of(self.subject)]

    def _place(self, row: Row) -> Place:
        entries = sorted(row.entries.values(), key=lambda entry: entry.value.mean, reverse=row.higher_is_better)
        lines = [self._line(row, entry) for entry in entries]
        amount, place = named(row.amount), (row.pruner, row.amount)
        if (
            len({tuple(each.counts) for each in self.model.rows if (each.pruner, each.amount) == place}) > 1
        ):  # only models without equally many blocks are compared
            amount += f" ({counted(row.counts[-1])})"
        amount = amount.replace(" ", "\N{NO-BREAK SPACE}")
        return Place(row, amount, *both_shares(row), self.charts.of_pruner(row.pruner), lines)

    def _line(self, row: Row, entry: Entry) -> Line:
        contender = entry.contender
        chance = Contender(RANDOM, contender.healer).label
        unhealed = row.entries.get(contender.scorer)
        pruned = self.model.unhealed.get((row.pruner, row.amount, contender.scorer), ())
        healed = self.model.healed.get((row.pruner, row.amount, contender), ())
        shares = [share for model in healed if model.healing and (share := model.healing.recovered) is not None]
        return Line(
            contender=contender,
            value=_with_error(entry) if row.original is None else entry.value,
            marked=entry.best,
            random=chance if chance in row.entries else None,
            baseline=row.baselines.get(contender.healer),
            to_random=_contrast(entry.to_random, row),
            to_baseline=_contrast(entry.to_baseline, row),
            removed=always([model.blocks for model in pruned]),
            before=None if unhealed is None else unhealed.value.mean,
            gain=_contrast(entry.to_unhealed, row),
            recovered=interval(shares) if shares else None,
        )

    @cached_property
    def retained(self) -> list[tuple[Chart, Lines]]:
        """What is retained by amount, as bars and as curves, for each pruner; no curves of a single amount each."""
        return [self._retained(places) for places in self.answers.values()]

    def _retained(self, places: Sequence[Place]) -> tuple[Chart, Lines]:
        known = {
            label: lines
            for label in self.looks
            if (lines := {n: each for n, place in enumerate(places) for each in place.lines if each.label == label})
        }
        most = max(1.0, *(line.value.mean for lines in known.values() for line in lines.values()))
        bars = {
            label: [
                Cell.bar(line.value, most, percent(line.value), marked=line.marked)
                if (line := lines.get(n))
                else Cell()
                for n in range(len(places))
            ]
            for label, lines in sorted(
                known.items(), key=lambda item: (-len(item[1]), -sum(line.value.mean for line in item[1].values()))
            )
        }
        counts = [round(place.row.removed_blocks * self.model.num_blocks) for place in places]
        curves = {label: {counts[n]: line.value for n, line in known[label].items()} for label in bars}
        columns = [f"{place.asked}\n{place.parameters}" for place in places]
        return Chart(columns, bars, places[0].pruner), curves if any(len(each) > 1 for each in curves.values()) else {}

    @cached_property
    def healing(self) -> list[Place]:
        """The places of which it is known what is retained once healed."""
        return [place for place in self.places if any(line.contender.healer for line in place.lines)]

    @cached_property
    def unmeasured(self) -> list[str]:
        """The contenders of which it is not known what they retain."""
        known = {line.label for place in self.places for line in place.lines}
        contenders = self.results.design.contenders.items()
        return [label for label, each in contenders if each.scorer in self.model.scored and label not in known]

    @property
    def remarks(self) -> list[str]:
        """The lines that explain the marks of tasks, and what tables leave out."""
        return list(remarks([self.model]))

    @cached_property
    def quality(self) -> list[Table]:
        """The metrics of this model and of what was pruned from it."""
        if not self.model.rows:
            return []
        unnamed = self.model.model_copy(update={"label": ""})
        return quality(self.results.model_copy(update={"models": {"": unnamed}}))

    @cached_property
    def fidelity(self) -> list[Table]:
        """How far pruned models are from the intact one."""
        return fidelity(self.results.model_copy(update={"models": {self.model.label: self.model}}))

    @cached_property
    def continued(self) -> list[Continued]:
        """Continuations of the same prompts, side by side."""
        return continued(self.model, self.results.design.added)


def question(results: Results) -> str:
    """Return what was asked: `how many` blocks may go, what models are `worth`, `which scorer`, or `which blocks`."""
    if any(model.answer for model in results.models.values()):
        return "how many"
    if not any(results.design.measured.values()):
        return "which blocks"
    return "worth" if subject(results) else "which scorer"


def subject(results: Results) -> str:
    """Return the only scorer that was asked for; empty if several are compared."""
    scorers = list(results.design.scorers)
    asked = [scorer for scorer in scorers if scorer not in results.design.baselines] or scorers
    return asked[0] if len(asked) == 1 else ""


def _with_error(entry: Entry) -> Interval:
    """Return what is retained with its interval over the repeats, or over the documents where repeats do not differ."""
    value, ends = entry.value, entry.ends
    if ends is None or (value.low is not None and value.high is not None and value.low < value.high):
        return value
    low, high = (value.mean + times_stderr(None) * (end - value.mean) for end in ends)
    return Interval(mean=value.mean, low=low, high=high, count=value.count)


def _verdict(contrast: Contrast | None) -> str:
    return contrast.verdict if contrast else ""


def _contrast(difference: Difference | None, row: Row) -> Contrast | None:
    if difference is None:
        return None

    def written(value: float) -> str:
        if row.original is None:
            return signed(value * 100, "+.1f")
        if row.factors:
            return f"×{number(math.exp(value), 3)}" if value < _MOST else "×∞"
        return ("+" if value > 0 else "") + number(value).replace("-", MINUS)

    if math.isnan(difference.mean):
        return Contrast("∞ − ∞", "", "unknown")
    better = (difference.mean > 0) is row.higher_is_better
    verdict = ("better" if better else "worse") if difference.tells else "equal"
    if difference.low is None or difference.high is None:  # an infinite one may be significant, and has no interval
        return Contrast(written(difference.mean), "", verdict if difference.tells else "unknown")
    return Contrast(written(difference.mean), f"{written(difference.low)} to {written(difference.high)}", verdict)

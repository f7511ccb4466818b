"""What the page says of one model. Of the results, the page knows what it reads here and in the charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from layerimp._table import Table
from layerimp.defaults import RANDOM
from layerimp.pruner import counted
from layerimp.report.document import Results
from layerimp.report.page.charts import Cell, Chart, Charts, Contrast, contrast_of
from layerimp.report.page.curves import Lines, Look
from layerimp.report.results.comparison import ModelResults, Place
from layerimp.report.results.contenders import Contender
from layerimp.report.results.measures import Interval
from layerimp.report.results.models import Amount, Removal
from layerimp.report.results.rows import Entry, Row
from layerimp.report.statistics import interval, times_stderr
from layerimp.report.tables import fidelity, quality
from layerimp.report.tables.fidelity_figures import Continued, continued
from layerimp.report.tables.models import remarks
from layerimp.report.words import always, amount_asked, amount_name, parameters, percent, without


@dataclass(frozen=True)
class Line:
    """A contender in one row.

    Attributes:
        entry: The entry of the results.
        value: The mean of the metric, with its interval over the repeats; of what is retained over the documents, where
            the repeats do not differ.
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

    entry: Entry
    value: Interval
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
        return self.entry.label


@dataclass(frozen=True)
class Measure:
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
    def without(self) -> str:
        """What the models lack, in a sentence."""
        return without(self.row.amount)

    @property
    def leaders(self) -> list[str]:
        """The labels of the best, which are several if they are equal."""
        return [line.label for line in self.lines if line.value.mean == self.lines[0].value.mean]

    @property
    def clear(self) -> bool:
        """Whether the leader is significantly better than all others."""
        return self.row.best == [self.lines[0].label]

    @property
    def behind(self) -> bool:
        """Whether a baseline leads."""
        return self.lines[0].baseline in self.leaders

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
        own = [line for line in self.lines if line.entry.scorer == scorer]
        return sorted(own, key=lambda line: bool(line.entry.healer))


def leads(places: Sequence[Measure]) -> dict[tuple[str, ...], list[str]]:
    """Return the amounts at which each of the leaders leads, by their labels."""
    amounts: dict[tuple[str, ...], list[str]] = {}
    for place in places:
        amounts.setdefault(tuple(place.leaders), []).append(place.amount)
    return amounts


def with_error(entry: Entry) -> Interval:
    """Return what is retained with its interval over the repeats, or over the documents where repeats do not differ."""
    value, ends = entry.value, entry.ends
    if ends is None or (value.low is not None and value.high is not None and value.low < value.high):
        return value
    low, high = (value.mean + times_stderr(None) * (end - value.mean) for end in ends)
    return Interval(mean=value.mean, low=low, high=high, count=value.count)


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
    def places(self) -> list[Measure]:
        """What is retained on average."""
        return [self._place(row) for row in self.model.headlines]

    @cached_property
    def tasks(self) -> list[Measure]:
        """All single metrics."""
        headlines = set(map(id, self.model.headlines))
        return [self._place(row) for row in self.model.rows if id(row) not in headlines]

    @cached_property
    def answers(self) -> dict[str, list[Measure]]:
        """What is retained on average, by pruner."""
        answers: dict[str, list[Measure]] = {}
        for place in self.places:
            answers.setdefault(place.row.pruner, []).append(place)
        return answers

    def own(self, places: Sequence[Measure]) -> list[Measure]:
        """Return the places of the only scorer that was asked for; none if several are compared."""
        return [place for place in places if self.subject and place.of(self.subject)]

    def _place(self, row: Row) -> Measure:
        entries = sorted(row.entries.values(), key=lambda entry: entry.value.mean, reverse=row.higher_is_better)
        amount = amount_name(row.amount)
        if len(self._counts[row.pruner, row.amount]) > 1:  # only models without equally many blocks are compared
            amount += f" ({counted(row.counts[-1])})"
        amount = amount.replace(" ", "\N{NO-BREAK SPACE}")
        lines = [self._line(row, entry) for entry in entries]
        share, pruner = parameters(row.removed_parameters), self.charts.of_pruner(row.pruner)
        return Measure(row, amount, amount_asked(row.amount), share, pruner, lines)

    @cached_property
    def _counts(self) -> dict[Place, set[tuple[int, ...]]]:
        """The numbers of blocks that are removed at each place."""
        counts: dict[Place, set[tuple[int, ...]]] = {}
        for row in self.model.rows:
            counts.setdefault((row.pruner, row.amount), set()).add(tuple(row.counts))
        return counts

    @cached_property
    def _removed(self) -> dict[tuple[str, Amount, str], Removal]:
        return self.model.removed

    def _line(self, row: Row, entry: Entry) -> Line:
        chance = Contender(RANDOM, entry.healer).label
        unhealed, models = row.entries.get(entry.scorer), self._removed[row.pruner, row.amount, entry.label].models
        repairs = (model.healing for model in models)
        shares = [each.recovered for each in repairs if each is not None and each.recovered is not None]
        return Line(
            entry=entry,
            value=with_error(entry) if row.original is None else entry.value,
            random=chance if chance in row.entries else None,
            baseline=row.baselines.get(entry.healer),
            to_random=contrast_of(entry.to_random, row),
            to_baseline=contrast_of(entry.to_baseline, row),
            removed=always([model.blocks for model in models]),
            before=None if unhealed is None else unhealed.value.mean,
            gain=contrast_of(entry.to_unhealed, row),
            recovered=interval(shares) if shares else None,
        )

    @cached_property
    def retained(self) -> list[tuple[Chart, Lines]]:
        """What is retained by amount, as bars and as curves, for each pruner; no curves of a single amount each."""
        return [self._retained(places) for places in self.answers.values()]

    def _retained(self, places: Sequence[Measure]) -> tuple[Chart, Lines]:
        known = {
            label: lines
            for label in self.looks
            if (lines := {n: each for n, place in enumerate(places) for each in place.lines if each.label == label})
        }
        most = max(1.0, *(line.value.mean for lines in known.values() for line in lines.values()))
        bars = {
            label: [
                Cell.bar(line.value, most, percent(line.value), marked=line.entry.best)
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
    def healing(self) -> list[Measure]:
        """The places of which it is known what is retained once healed."""
        return [place for place in self.places if any(line.entry.healer for line in place.lines)]

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
    if results.design.scorers and not any(results.design.measured.values()):
        return "which blocks"
    return "worth" if subject(results) else "which scorer"


def subject(results: Results) -> str:
    """Return the only scorer that was asked for, or the label of named blocks; empty if several are compared."""
    removals = [removal for model in results.models.values() for removal in model.removals]
    scorers = list(results.design.scorers) or list(dict.fromkeys(removal.scorer for removal in removals))
    asked = [scorer for scorer in scorers if scorer not in results.design.baselines] or scorers
    return asked[0] if len(asked) == 1 else ""

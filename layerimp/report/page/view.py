"""What the page says of one model. Of the results, the page knows what it reads here and in the charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from layerimp._table import Table
from layerimp.defaults import RANDOM
from layerimp.pruner import counted
from layerimp.report.document import Results
from layerimp.report.page.charts import Cell, Chart, Charts
from layerimp.report.page.curves import Lines, Look
from layerimp.report.page.places import Line, Place, contrast_of, with_error
from layerimp.report.results.comparison import ModelResults
from layerimp.report.results.contenders import Contender
from layerimp.report.results.rows import Entry, Row
from layerimp.report.statistics.significance import interval
from layerimp.report.tables.comparison import fidelity, quality
from layerimp.report.tables.distances import Continued, continued
from layerimp.report.tables.models import remarks
from layerimp.report.tables.numbers import both_shares, measured_on, named, percent
from layerimp.report.words import always


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
            value=with_error(entry) if row.original is None else entry.value,
            marked=entry.best,
            random=chance if chance in row.entries else None,
            baseline=row.baselines.get(contender.healer),
            to_random=contrast_of(entry.to_random, row),
            to_baseline=contrast_of(entry.to_baseline, row),
            removed=always([model.blocks for model in pruned]),
            before=None if unhealed is None else unhealed.value.mean,
            gain=contrast_of(entry.to_unhealed, row),
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

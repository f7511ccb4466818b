"""What the page says of contenders at one amount, and of who leads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from layerimp.report.page.charts import MINUS, signed
from layerimp.report.results.contenders import Contender
from layerimp.report.results.measures import Difference, Interval
from layerimp.report.results.rows import Entry, Row
from layerimp.report.statistics.significance import times_stderr
from layerimp.report.tables.numbers import number

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


def with_error(entry: Entry) -> Interval:
    """Return what is retained with its interval over the repeats, or over the documents where repeats do not differ."""
    value, ends = entry.value, entry.ends
    if ends is None or (value.low is not None and value.high is not None and value.low < value.high):
        return value
    low, high = (value.mean + times_stderr(None) * (end - value.mean) for end in ends)
    return Interval(mean=value.mean, low=low, high=high, count=value.count)


def _verdict(contrast: Contrast | None) -> str:
    return contrast.verdict if contrast else ""


def contrast_of(difference: Difference | None, row: Row) -> Contrast | None:
    """Return a difference as a cell shows it; None if there is none."""
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

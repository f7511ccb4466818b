"""Makes the rows of tables: one metric of one task, by scorer and healer, with the significance of differences."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from layerimp.calibration.sampling import Calibration
from layerimp.defaults import RANDOM
from layerimp.metric import Key, Metric
from layerimp.report.paired_bootstrap import Estimate, difference, unbeaten
from layerimp.report.results.comparison import Design, Place
from layerimp.report.results.contenders import Contender
from layerimp.report.results.measures import Difference, Interval
from layerimp.report.results.models import Amount, PrunedModel, Size, Target
from layerimp.report.results.rows import RETAINED, Entry, Row
from layerimp.report.results.scores import Scored
from layerimp.report.results.search import QualitySearch
from layerimp.report.retained import RetainedDraws, counting
from layerimp.report.statistics import corrected, interval, measured

Scale = Callable[[float], float]
"""Maps the scale on which figures are compared to the scale on which they are shown."""


FAR = 10.0
"""A perplexity that exceeds the best one by this factor never counts as equal to it, however few the documents."""


@dataclass(frozen=True)
class Pruned:
    """A pruned model, with all values of its metrics.

    Attributes:
        model: The model as documents describe it.
        metrics: The metrics of quality, by task and name.
    """

    model: PrunedModel
    metrics: Mapping[Key, Metric]

    @property
    def blocks(self) -> list[int]:
        """The removed blocks, in order."""
        return self.model.blocks


Removed = tuple[str, Amount, Contender]
"""A pruner, an amount and a contender."""
Left = Mapping[Removed, Sequence[Pruned]]
"""The pruned models of contenders, one for each repeat."""


@dataclass(frozen=True)
class Measurements:
    """One intact model, with everything that was scored, removed and measured.

    Attributes:
        num_blocks: The number of blocks of the intact model.
        size: The size of the intact model; None if nothing is evaluated yet.
        intact: The metrics of the intact model.
        scored: The scores, by label of the scorer.
        left: The pruned models.
        footprint: The costs of the intact model.
        targets: The sizes that were asked for, by quantity.
        loader: The stock class that loads the checkpoints.
        calibration: The text that drove the scoring, if it was one text.
        search: The result of a search.
    """

    num_blocks: int
    size: Size | None
    intact: Mapping[Key, Metric]
    scored: Mapping[str, Scored]
    left: Left
    footprint: Sequence[Metric] = ()
    targets: Mapping[str, Target] = field(default_factory=dict)
    loader: str | None = None
    calibration: Calibration | None = None
    search: QualitySearch | None = None


def rows(design: Design, known: Measurements, retained: Mapping[Removed, RetainedDraws]) -> Iterator[Row]:
    """Yield the rows of one model: models with equally many blocks removed for one amount stand together.

    Args:
        design: The design of the comparison.
        known: What was measured.
        retained: What the models of each contender retain.
    """
    places: dict[Place, dict[tuple[int, ...], dict[Contender, Sequence[Pruned]]]] = {}
    for (pruner, amount, contender), models in known.left.items():
        places.setdefault((pruner, amount), {}).setdefault(_counts(models), {})[contender] = models
    for place, by_counts in places.items():
        for counts in sorted(by_counts):
            here = by_counts[counts]
            kept = {who.label: retained[*place, who] for who in here if (*place, who) in retained}
            yield from _Comparison(design, known, place, here, kept).rows()


def _counts(models: Sequence[Pruned]) -> tuple[int, ...]:
    """Return how many blocks the models of a contender lack: one number, or all in ascending order if they differ."""
    counts = sorted(len(model.blocks) for model in models)
    return tuple(counts[:1] if counts[0] == counts[-1] else counts)


@dataclass(frozen=True)
class _Comparison:
    """Models from which one pruner removed equally many blocks for one amount. Only these are compared.

    Attributes:
        design: The design of the comparison.
        known: What was measured.
        place: The pruner and the amount.
        models: The pruned models of each contender.
        retained: What these retain, by label.
    """

    design: Design
    known: Measurements
    place: Place
    models: Mapping[Contender, Sequence[Pruned]]
    retained: Mapping[str, RetainedDraws]

    @cached_property
    def _contenders(self) -> dict[str, Contender]:
        return {contender.label: contender for contender in self.models}

    @cached_property
    def _counting(self) -> Mapping[str, Metric]:
        return counting(self.known.intact.values())

    def rows(self) -> Iterator[Row]:
        """Yield a row for each metric, and for what is retained; none before a pruned model is evaluated."""
        for key, judged in deciding(self.known.intact).items():
            tables, metric = self._tables(key), self.known.intact[key]
            if tables:
                best = self._best(self._tables(judged), higher=metric.higher_is_better)
                yield self._row(key, metric, _estimates(tables), tables, best)
        means = {
            name: {label: mean for label, kept in self.retained.items() if (mean := getattr(kept, name)) is not None}
            for name in ("worst", "likelihood", "accuracy")
        }
        if means["worst"]:
            names = [name for name, estimates in means.items() if estimates]
            for name in names if len(names) == 3 else names[1:]:  # with one mean, the lower mean is the same
                yield self._row((RETAINED, name), None, means[name], {}, self._unbeaten(means[name], higher=True))

    def _tables(self, key: Key) -> dict[str, list[Metric]]:
        """Return a metric by contender and repeat, of the contenders that have it in every repeat."""
        return {
            contender.label: [model.metrics[key] for model in models]
            for contender, models in self.models.items()
            if all(key in model.metrics for model in models)
        }

    def _best(self, tables: Mapping[str, Sequence[Metric]], *, higher: bool) -> frozenset[str]:
        """Return the labels that no other beats by a metric, without those that are far worse than the best."""
        estimates = _estimates(tables)
        equal = self._unbeaten(estimates, higher=higher)
        return near({label: _scale(tables[label])(estimates[label].mean) for label in equal}, higher=higher)

    def _unbeaten(self, estimates: Mapping[str, Estimate], *, higher: bool) -> frozenset[str]:
        return unbeaten(estimates, higher=higher, compare=lambda a, b: self._difference(estimates, a, b))

    def _row(
        self,
        key: Key,
        original: Metric | None,
        estimates: Mapping[str, Estimate],
        tables: Mapping[str, Sequence[Metric]],
        best: frozenset[str],
    ) -> Row:
        higher = original is None or original.higher_is_better
        likelihood = None if original is None else original.likelihood
        sizes = [model.model.size for models in self.models.values() for model in models if model.model.size]
        whole = self.known.size.parameters if self.known.size else 0
        shares = [(whole - size.parameters) / whole for size in sizes]
        order = sorted(estimates, key=lambda label: estimates[label].mean, reverse=higher)
        baselines = self._best_baselines(order)
        to_random = self._differences(estimates, lambda contender: Contender(RANDOM, contender.healer).label)
        to_baseline = self._differences(estimates, lambda contender: baselines.get(contender.healer))
        to_unhealed = self._differences(estimates, lambda contender: contender.scorer)
        entries = {}
        for label, estimate in estimates.items():
            contender, scale = self._contenders[label], _scale(tables.get(label, ()))
            entries[label] = Entry(
                scorer=contender.scorer,
                healer=contender.healer,
                values=[scale(point) for point in estimate.points.tolist()],
                value=interval(estimate.points.tolist()).mapped(scale),
                ends=_ends(estimate, scale),
                retained=self._retained(original, label) if original else None,
                to_random=to_random.get(label),
                to_baseline=to_baseline.get(label),
                to_unhealed=to_unhealed.get(label),
                best=label in best,
            )
        counts = list(dict.fromkeys(_counts(next(iter(self.models.values())))))
        return Row(
            pruner=self.place[0],
            amount=self.place[1],
            counts=counts,
            task=key[0],
            metric=key[1],
            original=None if original is None else measured(original),
            higher_is_better=higher,
            factors=likelihood is not None and not likelihood.bits,
            entries=entries,
            baselines=baselines,
            removed_blocks=sum(counts) / len(counts) / self.known.num_blocks,
            removed_parameters=(min(shares), max(shares)),
        )

    def _best_baselines(self, order: Sequence[str]) -> dict[str, str]:
        """Return the best baseline for each healer: a healed model has to beat models healed in the same way."""
        best: dict[str, str] = {}
        for label in order:
            if self._contenders[label].scorer in self.design.baselines:
                best.setdefault(self._contenders[label].healer, label)
        return best

    def _differences(
        self, estimates: Mapping[str, Estimate], rival_of: Callable[[Contender], str | None]
    ) -> dict[str, Difference]:
        """Compare contenders with their rivals; Holm's correction is for the number of these pairs."""
        rivals = {label: rival_of(self._contenders[label]) for label in estimates}
        return corrected(
            {
                label: self._difference(estimates, label, rival)
                for label, rival in rivals.items()
                if rival is not None and rival in estimates and rival != label
            }
        )

    def _difference(self, estimates: Mapping[str, Estimate], label: str, other: str) -> Difference:
        """Return how much greater `label` is, with the uncertainty from draws of text and from documents."""
        if len(self._removed[label] | self._removed[other]) == 1:
            return Difference(mean=0.0, low=0.0, high=0.0, p=1.0)  # the same model
        pair = self._contenders[label], self._contenders[other]
        draws = [[each.model.draw for each in self.models[contender]] for contender in pair]
        paired = draws[0] == draws[1] and (pair[0].scorer == pair[1].scorer or all(map(self._reads, pair)))
        return difference(estimates[label], estimates[other], paired=paired)

    @cached_property
    def _removed(self) -> dict[str, set[tuple[frozenset[int], str, int]]]:
        """What identifies the models of each contender. Healing on different texts gives different models."""
        return {
            each.label: {(frozenset(m.blocks), each.healer, m.model.draw if each.healer else 0) for m in models}
            for each, models in self.models.items()
        }

    def _reads(self, contender: Contender) -> bool:
        """Whether a contender's repeats read text, by the scorer or by the healer."""
        return bool(contender.healer) or contender.scorer not in self.design.blind

    def _retained(self, original: Metric, label: str) -> Interval | None:
        """Return what a contender retains of a task, if the task counts by this metric."""
        kept = self.retained[label].tasks.get(original.task)
        if kept is None or self._counting[original.task] is not original or any(map(math.isnan, kept.points)):
            return None
        return interval(kept.points.tolist())


def _estimates(tables: Mapping[str, Sequence[Metric]]) -> dict[str, Estimate]:
    return {label: Estimate.of(metrics) for label, metrics in tables.items()}


def _ends(estimate: Estimate, scale: Scale) -> tuple[float, float] | None:
    """Return the mean minus and plus one standard error over the documents, as shown; None if not known or infinite."""
    error = estimate.error
    if error is None:
        return None
    ends = scale(estimate.mean - error), scale(estimate.mean + error)
    return ends if all(map(math.isfinite, ends)) else None


def _scale(metrics: Sequence[Metric]) -> Scale:
    """Return the scale on which an estimate of these metrics is shown: a loss as its perplexity."""
    first = metrics[0].likelihood if metrics else None
    if first is None or first.bits:
        return float
    known = all(m.likelihood is not None and math.isfinite(m.likelihood.loss) for m in metrics)
    return first.metric if known else float


def deciding(intact: Mapping[Key, Metric]) -> dict[Key, Key]:
    """Return for each metric the one by which models are compared: for a likelihood, that with the largest unit.

    A likelihood has the same winner in every unit, and a factor is largest in the largest unit.
    """
    widest: dict[str, Key] = {}
    for key, metric in intact.items():
        if metric.likelihood is not None:
            first = widest.setdefault(key[0], key)
            if _units(metric) < _units(intact[first]):
                widest[key[0]] = key
    return {key: key if metric.likelihood is None else widest[key[0]] for key, metric in intact.items()}


def _units(metric: Metric) -> float:
    return 0.0 if metric.likelihood is None else sum(metric.likelihood.units)


def near(values: Mapping[str, float], *, higher: bool) -> frozenset[str]:
    """Return the labels of unbeaten values without those that are far worse than the best, as perplexities may be."""
    if higher or not values:
        return frozenset(values)
    return frozenset(label for label, value in values.items() if value < FAR * min(values.values()) or value <= 0)

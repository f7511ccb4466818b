"""Makes the rows of tables: one metric of one task, by scorer and healer, with the significance of differences."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from layerimp.defaults import RANDOM
from layerimp.fidelity.record import Fidelity
from layerimp.metric import Metric, retention
from layerimp.pruner import PrunePlan
from layerimp.report.results.comparison import Design
from layerimp.report.results.contenders import Contender
from layerimp.report.results.measures import Difference, Interval
from layerimp.report.results.models import Amount, ReachedTarget, Repaired, Size
from layerimp.report.results.rows import RETAINED, Entry, Row
from layerimp.report.statistics.measures import measured
from layerimp.report.statistics.paired_bootstrap import Estimate, difference, unbeaten
from layerimp.report.statistics.retained import Key, Retained, counting
from layerimp.report.statistics.significance import holm, interval
from layerimp.steps import Step, Sublayer, removed_by

Scale = Callable[[float], float]
"""Maps the scale on which figures are compared to the scale on which they are shown."""


FAR = 10.0
"""A perplexity that exceeds the best one by this factor never counts as equal to it, however few the documents."""


@dataclass(frozen=True)
class Pruned:
    """A pruned model, with everything that was measured.

    Attributes:
        draw: The number of the repeat.
        plan: What was removed.
        size: The size of the pruned model; None if it is not evaluated yet.
        metrics: The metrics of quality, by task and name.
        healing: What was done to heal the model; None if it is not healed, or not evaluated yet.
        footprint: The metrics of cost.
        fidelity: How far the model is from the intact one; None if that is not measured, or not yet.
        targets: By quantity, what the model reaches of each target.
        checkpoint: The path of the checkpoint; None if there is none.
    """

    draw: int
    plan: PrunePlan
    size: Size | None
    metrics: Mapping[Key, Metric]
    healing: Repaired | None = None
    footprint: Sequence[Metric] = ()
    fidelity: Fidelity | None = None
    targets: Mapping[str, ReachedTarget] = field(default_factory=dict)
    checkpoint: str | None = None

    @property
    def blocks(self) -> list[Step]:
        """The removed steps, in order."""
        return self.plan.blocks


Left = Mapping[tuple[str, Amount, Contender], Sequence[Pruned]]
"""The pruned models of contenders, one for each repeat, by pruner, amount and contender."""


def counts_of(models: Sequence[Pruned]) -> tuple[int, ...]:
    """Return how many blocks the models of a contender lack: one number, or all in ascending order if they differ."""
    counts = sorted(len(model.blocks) for model in models)
    return tuple(counts[:1] if counts[0] == counts[-1] else counts)


@dataclass(frozen=True)
class Rows:
    """The rows of models from which one pruner removed equally many blocks for one amount. Only these are compared.

    Attributes:
        design: The design of the comparison.
        pruner: The label of the pruner.
        amount: What was asked for.
        num_blocks: The number of blocks of the intact model.
        size: The size of the intact model.
        intact: The metrics of the intact model.
        contenders: The contenders, by label.
        pruned: The pruned models of each contender, by label.
        retained: What each contender's models retain, by label.
    """

    design: Design
    pruner: str
    amount: Amount
    num_blocks: int
    size: Size
    intact: Mapping[Key, Metric]
    contenders: Mapping[str, Contender]
    pruned: Mapping[str, Sequence[Pruned]]
    retained: Mapping[str, Retained]

    @cached_property
    def _counting(self) -> Mapping[str, Metric]:
        return counting(self.intact.values())

    def rows(self) -> Iterator[Row]:
        """Yield a row for each metric, and for what is retained; none before a pruned model is evaluated."""
        for key, judged in deciding(self.intact).items():
            tables, metric = self._tables(key), self.intact[key]
            if tables:
                best = self._best(self._tables(judged), higher=metric.higher_is_better)
                yield self._row(key, metric, _estimates(tables), tables, best)
        means = {
            "worst": {label: kept.worst for label, kept in self.retained.items()},
            "likelihood": {label: kept.likelihood for label, kept in self.retained.items()},
            "accuracy": {label: kept.accuracy for label, kept in self.retained.items()},
        }
        known = {name: {s: kept for s, kept in each.items() if kept is not None} for name, each in means.items()}
        if known["worst"]:
            names = [name for name, estimates in known.items() if estimates]
            for name in names if len(names) == 3 else names[1:]:  # with one mean, the lower mean is the same
                best = self._unbeaten(known[name], higher=True)
                yield self._row((RETAINED, name), None, known[name], {}, best)

    def _tables(self, key: Key) -> dict[str, list[Metric]]:
        """Return a metric by contender and repeat, of the contenders that have it in every repeat."""
        return {
            label: [model.metrics[key] for model in models]
            for label, models in self.pruned.items()
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
        sizes = [model.size for models in self.pruned.values() for model in models if model.size]
        shares = [(self.size.parameters - size.parameters) / self.size.parameters for size in sizes]
        order = sorted(estimates, key=lambda label: estimates[label].mean, reverse=higher)
        baselines = self._best_baselines(order)
        to_random = self._differences(estimates, lambda contender: Contender(RANDOM, contender.healer).label)
        to_baseline = self._differences(estimates, lambda contender: baselines.get(contender.healer))
        to_unhealed = self._differences(estimates, lambda contender: contender.scorer)
        entries = {}
        for label, estimate in estimates.items():
            metrics, contender = tables.get(label, ()), self.contenders[label]
            scale = _scale(metrics)
            entries[label] = Entry(
                scorer=contender.scorer,
                healer=contender.healer,
                values=[scale(point) for point in estimate.points.tolist()],
                value=interval(estimate.points.tolist()).mapped(scale),
                ends=_ends(estimate, scale),
                retention=_retention(original, metrics) if original else None,
                retained=self._retained(original, label) if original else None,
                to_random=to_random.get(label),
                to_baseline=to_baseline.get(label),
                to_unhealed=to_unhealed.get(label),
                best=label in best,
            )
        counts = list(dict.fromkeys(count for models in self.pruned.values() for count in counts_of(models)))
        return Row(
            pruner=self.pruner,
            amount=self.amount,
            counts=counts,
            task=key[0],
            metric=key[1],
            original=None if original is None else measured(original),
            higher_is_better=higher,
            factors=likelihood is not None and not likelihood.bits,
            entries=entries,
            baselines=baselines,
            removed_blocks=sum(counts) / len(counts) / self.num_blocks,
            removed_parameters=(min(shares), max(shares)),
        )

    def _best_baselines(self, order: Sequence[str]) -> dict[str, str]:
        """Return the best baseline for each healer: a healed model has to beat models healed in the same way."""
        best: dict[str, str] = {}
        for label in order:
            if self.contenders[label].scorer in self.design.baselines:
                best.setdefault(self.contenders[label].healer, label)
        return best

    def _differences(
        self, estimates: Mapping[str, Estimate], rival_of: Callable[[Contender], str | None]
    ) -> dict[str, Difference]:
        """Compare contenders with their rivals; Holm's correction is for the number of these pairs."""
        rivals = {label: rival_of(self.contenders[label]) for label in estimates}
        contrasts = {
            label: self._difference(estimates, label, rival)
            for label, rival in rivals.items()
            if rival is not None and rival in estimates and rival != label
        }
        corrected = holm({label: contrast.p for label, contrast in contrasts.items() if contrast.p is not None})
        return {label: contrast.model_copy(update={"p": corrected.get(label)}) for label, contrast in contrasts.items()}

    def _difference(self, estimates: Mapping[str, Estimate], label: str, other: str) -> Difference:
        """Return how much greater `label` is, with the uncertainty from draws of text and from documents."""
        if len(self._models(label) | self._models(other)) == 1:
            return Difference(mean=0.0, low=0.0, high=0.0, p=1.0)  # the same model
        ours, theirs = self.pruned[label], self.pruned[other]
        same = self.contenders[label].scorer == self.contenders[other].scorer
        paired = same or (self._reads(label) and self._reads(other))
        paired = paired and [v.draw for v in ours] == [v.draw for v in theirs]
        return difference(estimates[label], estimates[other], paired=paired)

    def _models(self, label: str) -> set[tuple[frozenset[Sublayer], str, int]]:
        """Return what identifies the models of a contender. Healing on different texts gives different models."""
        healer = self.contenders[label].healer
        return {(removed_by(model.blocks), healer, model.draw if healer else 0) for model in self.pruned[label]}

    def _reads(self, label: str) -> bool:
        """Whether a contender's repeats read text, by the scorer or by the healer."""
        contender = self.contenders[label]
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


def _retention(original: Metric, metrics: Sequence[Metric]) -> Interval | None:
    known = [share for share in (retention(original, metric) for metric in metrics) if share is not None]
    return interval(known) if len(known) == len(metrics) else None


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

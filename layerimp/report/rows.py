"""Makes the rows of tables: one metric of one task, by scorer and healer, with the significance of differences."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from layerimp.defaults import RANDOM
from layerimp.evaluator import Metric, retention
from layerimp.report.data import Size
from layerimp.report.findings import RETAINED, Contender, Design, Entry, Key, Pruned, Row
from layerimp.report.statistics.intervals import LEVEL, Difference, Interval, holm, interval
from layerimp.report.statistics.paired_bootstrap import Estimate, difference
from layerimp.report.statistics.retained import Retained, counting, summed_up
from layerimp.steps import Sublayer, removed_by

Scale = Callable[[float], float]
"""Maps the scale on which figures are compared to the scale on which they are shown."""


@dataclass(frozen=True)
class Rows:
    """The rows of one model at one pruner and ratio.

    Attributes:
        design: The design of the comparison.
        model: The label of the model.
        pruner: The label of the pruner.
        ratio: The share or the number of blocks removed.
        intact: The metrics of the intact model.
        size: The size of the intact model.
        pruned: The pruned models of each contender, by label.
    """

    design: Design
    model: str
    pruner: str
    ratio: float
    intact: Mapping[Key, Metric]
    size: Size
    pruned: Mapping[str, Sequence[Pruned]]

    @cached_property
    def retained(self) -> dict[str, Retained]:
        """What each contender's models retain, by label."""
        return {name: summed_up(self._counting, [one.metrics for one in found]) for name, found in self.pruned.items()}

    @cached_property
    def _counting(self) -> Mapping[str, Metric]:
        return counting(self.intact.values())

    @cached_property
    def _contenders(self) -> Mapping[str, Contender]:
        return self.design.contenders

    def made(self) -> Iterator[Row]:
        """Yield a row for each metric, and for what is retained; none before a pruned model is evaluated."""
        for key, metric in self.intact.items():
            tables = {
                scorer: [one.metrics[key] for one in found]
                for scorer, found in self.pruned.items()
                if all(key in one.metrics for one in found)
            }
            estimates = {scorer: Estimate.of(metrics) for scorer, metrics in tables.items()}
            if estimates:
                yield self._row(key, metric, estimates, tables)
        means = {
            "worst": {scorer: one.worst for scorer, one in self.retained.items()},
            "likelihood": {scorer: one.likelihood for scorer, one in self.retained.items()},
            "accuracy": {scorer: one.accuracy for scorer, one in self.retained.items()},
        }
        found = {name: {s: one for s, one in each.items() if one is not None} for name, each in means.items()}
        if found["worst"]:
            names = [name for name, estimates in found.items() if estimates]
            for name in names if len(names) == 3 else names[1:]:  # with one mean, the lower mean is the same
                yield self._row((RETAINED, name), None, found[name], {})

    def _row(
        self,
        key: Key,
        original: Metric | None,
        estimates: Mapping[str, Estimate],
        tables: Mapping[str, Sequence[Metric]],
    ) -> Row:
        higher = original is None or original.higher_is_better
        sizes = [one.size for found in self.pruned.values() for one in found if one.size]
        shares = [(self.size.parameters - one.parameters) / self.size.parameters for one in sizes]
        order = sorted(estimates, key=lambda label: estimates[label].mean, reverse=higher)
        ranks, baselines = self._ranks(estimates, order), self._best_baselines(order)
        to_random = self._differences(estimates, lambda one: Contender(RANDOM, one.healer).label)
        to_baseline = self._differences(estimates, lambda one: baselines.get(one.healer))
        to_unhealed = self._differences(estimates, lambda one: one.scorer)
        entries = {}
        for label, estimate in estimates.items():
            metrics = tables.get(label, ())
            scale, error = _scale(metrics), estimate.error
            ends = None if error is None else (scale(estimate.mean - error), scale(estimate.mean + error))
            entries[label] = Entry(
                contender=self._contenders[label],
                values=[scale(point) for point in estimate.points.tolist()],
                value=interval(estimate.points.tolist()).mapped(scale),
                ends=ends if ends and all(map(math.isfinite, ends)) else None,
                retention=_retention(original, metrics) if original else None,
                retained=self._retained(original, label) if original else None,
                to_random=to_random.get(label),
                to_baseline=to_baseline.get(label),
                to_unhealed=to_unhealed.get(label),
                rank=ranks.get(label),
            )
        return Row(
            model=self.model,
            pruner=self.pruner,
            ratio=self.ratio,
            task=key[0],
            metric=key[1],
            original=original,
            higher_is_better=higher,
            entries=entries,
            baselines=baselines,
            removed_blocks=(self.size.blocks - sizes[0].blocks) / self.size.blocks,
            removed_parameters=(min(shares), max(shares)),
        )

    def _ranks(self, estimates: Mapping[str, Estimate], order: Sequence[str]) -> dict[str, int]:
        """Return 1 for a contender that is significantly better than all behind it, 2 for such a one among the others.

        Holm's correction is for the number of contenders behind. Equal contenders share a rank.
        """
        ranks: dict[str, int] = {}
        left = list(order)
        for place in (1, 2):
            equals = [s for s in left if estimates[s].points.tolist() == estimates[left[0]].points.tolist()]
            left = [scorer for scorer in left if scorer not in equals]
            if not left:
                break
            tests = {other: self._difference(estimates, equals[0], other).p for other in left}
            known = {other: p for other, p in tests.items() if p is not None}
            if len(known) == len(left) and max(holm(known).values()) < 1 - LEVEL:
                ranks |= dict.fromkeys(equals, place)
        return ranks

    def _best_baselines(self, order: Sequence[str]) -> dict[str, str]:
        """Return the best baseline for each healer: a healed model has to beat models healed in the same way."""
        found: dict[str, str] = {}
        for label in order:
            if self._contenders[label].scorer in self.design.baselines:
                found.setdefault(self._contenders[label].healer, label)
        return found

    def _differences(
        self, estimates: Mapping[str, Estimate], rival_of: Callable[[Contender], str | None]
    ) -> dict[str, Difference]:
        """Compare contenders with their rivals; Holm's correction is for the number of these pairs."""
        rivals = {label: rival_of(self._contenders[label]) for label in estimates}
        found = {
            label: self._difference(estimates, label, rival)
            for label, rival in rivals.items()
            if rival is not None and rival in estimates and rival != label
        }
        corrected = holm({label: one.p for label, one in found.items() if one.p is not None})
        return {label: replace(one, p=corrected.get(label)) for label, one in found.items()}

    def _difference(self, estimates: Mapping[str, Estimate], one: str, other: str) -> Difference:
        """Return how much greater `one` is, with the uncertainty from draws of text and from documents."""
        if len(self._models(one) | self._models(other)) == 1:
            return Difference(0.0, 0.0, 0.0, 1.0)  # the same model
        ours, theirs = self.pruned[one], self.pruned[other]
        same = self._contenders[one].scorer == self._contenders[other].scorer
        paired = same or (self._reads(one) and self._reads(other))
        paired = paired and [v.draw for v in ours] == [v.draw for v in theirs]
        return difference(estimates[one], estimates[other], paired=paired)

    def _models(self, label: str) -> set[tuple[frozenset[Sublayer], str, int]]:
        """Return what identifies the models of a contender. Healing on different texts gives different models."""
        healer = self._contenders[label].healer
        return {(removed_by(one.blocks), healer, one.draw if healer else 0) for one in self.pruned[label]}

    def _reads(self, label: str) -> bool:
        """Whether a contender's repeats read text, by the scorer or by the healer."""
        contender = self._contenders[label]
        return bool(contender.healer) or contender.scorer not in self.design.blind

    def _retained(self, original: Metric, label: str) -> Interval | None:
        """Return what a contender retains of a task, if the task counts by this metric."""
        found = self.retained[label].tasks.get(original.task)
        if found is None or self._counting[original.task] is not original or any(map(math.isnan, found.points)):
            return None
        return interval(found.points.tolist())


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

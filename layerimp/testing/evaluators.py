"""The contracts of an evaluator, checked on tiny models in memory."""

from __future__ import annotations

import math
from typing import Any

from layerimp.errors import LayerimpError
from layerimp.evaluation.runner import Evaluation
from layerimp.evaluator import Evaluator
from layerimp.metric import Metric, by_key
from layerimp.models.sizing import shapes_only
from layerimp.progress import SILENT
from layerimp.surgery.removal import pruned
from layerimp.testing.contracts import Contracts, only_if, require, unharmed
from layerimp.testing.tiny import tiny_model, tiny_tokenizer


def _measured(evaluator: Evaluator, model: Any) -> list[Metric]:
    """Measure a model as a run does, which checks the metrics."""
    return Evaluation(model, tiny_tokenizer(), SILENT).of({evaluator.name: evaluator}, evaluator.kind, "tiny")


def _documents_fit(metric: Metric, what: str) -> None:
    """A metric's value follows from its documents, and its floor is a finite number."""
    values, likelihood = metric.documents, metric.likelihood
    if values is not None and math.isfinite(metric.value):
        mean = sum(values) / len(values) if values else math.nan
        require(math.isclose(mean, metric.value, abs_tol=1e-9), f"{what} is {metric.value}, its documents' mean {mean}")
    if likelihood is not None:
        arrays = [likelihood.totals, likelihood.units, likelihood.unigram or likelihood.totals]
        lengths = list(map(len, arrays))
        require(len(set(lengths)) == 1 and lengths[0] > 0, f"the arrays of {what} have {lengths} documents")
        value = likelihood.metric(likelihood.loss)
        near = math.isclose(value, metric.value, rel_tol=1e-6)
        require(near, f"{what} is {metric.value}, its likelihood says {value}")
    for name, numbers in (("hashes", metric.hashes), ("answers", metric.answers)):
        if numbers is not None and metric.count is not None:
            sound = all(isinstance(number, int) and 0 <= number < 1 << 53 for number in numbers)
            whole = (
                f"the {name} of {what} are not {metric.count} whole numbers from 0 up to 2^53, one for each document"
            )
            require(sound and len(numbers) == metric.count, whole)
    require(metric.floor is None or math.isfinite(metric.floor), f"the floor of {what} is {metric.floor}")


class EvaluatorContracts(Contracts[Evaluator]):
    """The contracts of an evaluator."""

    def _fresh(self) -> Evaluator:
        fresh = super()._fresh()
        fresh.prepare()
        return fresh

    def metrics_are_sound(self) -> None:
        """The list has at least one metric and none twice; values, standard errors and documents are consistent.

        A value is the mean of its documents, or follows from their log-likelihoods. A perplexity may be infinite.
        """
        metrics = _measured(self._fresh(), tiny_model())
        require(bool(metrics), "evaluate() gives no metrics")
        for metric in metrics:
            what = f"{metric.name} of {metric.task}"
            require(metric.stderr is None or metric.stderr >= 0, f"the standard error of {what} is {metric.stderr}")
            _documents_fit(metric, what)

    def the_model_stays_as_it_is(self) -> None:
        """Weights, hooks, modes, the configuration and the random generators are as before."""
        model = tiny_model()
        with unharmed(model):
            self._fresh().evaluate(model, tiny_tokenizer())

    def pruned_models_are_measured(self) -> None:
        """A model without some of its blocks gets the same metrics, with any values."""
        model = tiny_model()
        ready = self._fresh()
        before = _measured(ready, model)
        with pruned(model, [1, 2]):
            after = _measured(ready, model)
        intact, left = (
            sorted((each.task, each.name, each.higher_is_better) for each in part) for part in (before, after)
        )
        require(intact == left, f"it measures {left} of a pruned model, and {intact} of the intact one")

    def quality_is_repeatable(self) -> None:
        """The quality of a model is the same number each time; costs may vary."""
        only_if(self.component.kind == "quality")
        first, second = (_measured(self._fresh(), tiny_model()) for _ in range(2))
        require(first == second, f"it measures {second} after {first}")

    def the_fingerprint_is_stable(self) -> None:
        """`fingerprint` returns None, or a text that is the same for the same options.

        The text changes with everything that can change the metrics: they are kept under it.
        """
        tags = [self._fresh().fingerprint() for _ in range(2)]
        require(all(tag is None or isinstance(tag, str) for tag in tags), f"fingerprint() gives {tags[0]!r}, not text")
        require(tags[0] == tags[1], f"fingerprint() gives {tags[1]!r} after {tags[0]!r}")

    def a_missing_tokenizer_is_handled(self) -> None:
        """Without a tokenizer the evaluator measures, or raises a `LayerimpError` that says why."""
        try:
            self._fresh().evaluate(tiny_model(), None)
        except LayerimpError:
            return

    def weights_do_not_matter_if_none_are_needed(self) -> None:
        """An evaluator that needs no weights measures the same without them; what needs them it leaves out."""
        only_if(not self.component.needs_weights)
        model, ready = tiny_model(), self._fresh()
        with_weights = by_key(_measured(ready, model))
        without = by_key(_measured(ready, shapes_only(model)))
        require(bool(without), "evaluate() gives no metrics for a model on the meta device")
        for key, metric in without.items():
            other = with_weights.get(key)
            require(metric == other, f"it measures {metric} without weights, and {other} with")

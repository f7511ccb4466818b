"""Runs evaluators on a model, intact or pruned, checks their metrics, and stores metrics that can be used again."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

from layerimp.blocks.snapshot import unchanged
from layerimp.defaults import ORIGINAL
from layerimp.errors import LayerimpError, NonFiniteError, PluginError
from layerimp.evaluation.cache import store, stored
from layerimp.metric import Metric
from layerimp.models.fingerprint import model_fingerprint
from layerimp.progress import About, Progress
from layerimp.registry.attribution import attributing, named

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from layerimp.evaluator import Evaluator


class Evaluation:
    """Lets evaluators measure a model.

    Args:
        model: The model, which may be pruned and restored between two measurements.
        tokenizer: The model's tokenizer.
        progress: Where to report progress.
        failed: By label, why an evaluator failed before; it is not run.
        intact_name: The name of the intact model for users.

    Attributes:
        failed: By label, why an evaluator failed, before or since.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        progress: Progress,
        *,
        failed: Mapping[str, str] = MappingProxyType({}),
        intact_name: str = ORIGINAL,
    ) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._progress, self._intact_name = progress, intact_name
        self.failed = dict(failed)

    def beside(self, model: PreTrainedModel) -> Evaluation:
        """Return the same evaluation for another model, such as a healed one; both know which evaluators failed."""
        beside = Evaluation(model, self._tokenizer, self._progress)
        beside.failed = self.failed
        return beside

    def of(
        self, evaluators: Mapping[str, Evaluator], kind: str, who: str = ORIGINAL, *, lenient: bool = False
    ) -> list[Metric]:
        """Run the evaluators of a kind on the model in its current state. The intact model's quality is stored.

        An evaluator that fails is not run again, and the others go on.

        Args:
            evaluators: The evaluators, by label.
            kind: The kind of evaluators to run: quality or cost.
            who: The label of the model in its current state.
            lenient: Whether the only evaluator may fail too, and for any reason.

        Raises:
            PluginError: the only evaluator failed, or an evaluator changed the model.
            NonFiniteError: the only evaluator returned a NaN.
            LayerimpError: an evaluator cannot measure the model.
        """
        by_key: dict[tuple[str, str], Metric] = {}
        for label, evaluator in evaluators.items():
            if evaluator.kind != kind or label in self.failed:
                continue
            shown = self._intact_name if who == ORIGINAL else who
            evaluator.progress = About(self._progress, shown)
            with unchanged(self._model, named("evaluator", label, type(evaluator))):
                try:
                    with attributing("evaluator", label, type(evaluator), f"on {shown}"):
                        metrics = self._metrics(label, evaluator, who)
                        by_key |= _by_task(metrics, "" if label == evaluator.name else f" ({label})", by_key)
                except LayerimpError as error:
                    faulty = isinstance(error, PluginError | NonFiniteError) and error.names_plugin
                    if not lenient and (not faulty or evaluators.keys() <= {label, *self.failed}):
                        raise
                    self.failed[label] = str(error)
                    self._progress.note(f"the evaluator {label} is left out: {error}")
        return list(by_key.values())

    def _metrics(self, label: str, evaluator: Evaluator, who: str) -> list[Metric]:
        """Return the metrics of one evaluator; those of the intact model that earlier runs measured are used again."""
        tag = evaluator.fingerprint() if who == ORIGINAL and evaluator.kind == "quality" else None
        if tag is None:
            return self._measured(evaluator)
        key = (self._weights, evaluator.name, tag)
        if (known := stored(*key)) is not None:
            with self._progress.stage(f"{label} of the intact model: known from an earlier run"):
                return known
        metrics = self._measured(evaluator)
        store(metrics, *key)
        return metrics

    def _measured(self, evaluator: Evaluator) -> list[Metric]:
        """Return metrics that are measured now.

        Raises:
            PluginError: the evaluator gives no metrics, or one of them twice.
            NonFiniteError: a metric is NaN.
        """
        metrics = evaluator.evaluate(self._model, self._tokenizer)
        if not isinstance(metrics, list) or not all(isinstance(metric, Metric) for metric in metrics):
            raise PluginError("evaluate() gives no list of Metric")
        _by_task(metrics, "", ())  # metrics that are not valid must not be stored
        return metrics

    @cached_property
    def _weights(self) -> str:
        """The fingerprint of the intact model; must be read while the model is intact."""
        return model_fingerprint(self._model, self._tokenizer)


def _by_task(
    metrics: Sequence[Metric], suffix: str, known: Container[tuple[str, str]]
) -> dict[tuple[str, str], Metric]:
    """Return metrics by task, with a suffix, and name, after checking that none is a NaN or known already.

    A standard error that is not finite is not known.
    """
    by_key: dict[tuple[str, str], Metric] = {}
    for metric in metrics:
        key = metric.task + suffix, metric.name
        if math.isnan(metric.value):
            raise NonFiniteError(f"{metric.name} of {metric.task} is NaN")
        if key in by_key or key in known:
            raise PluginError(f"it measures {metric.name} of {metric.task} a second time")
        stderr = metric.stderr if math.isfinite(metric.stderr or 0.0) else None
        members = tuple(member + suffix for member in metric.members)
        by_key[key] = replace(metric, task=key[0], stderr=stderr, members=members)
    return by_key

"""Evaluators at work on one model, intact or pruned: their metrics, checked, and kept where they can be used again."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from layerimp.blocks.snapshot import leaving_no_trace
from layerimp.defaults import ORIGINAL
from layerimp.errors import NonFiniteError, PluginError
from layerimp.evaluation.cache import MetricsCache, kept_as
from layerimp.evaluator import Metric
from layerimp.models.fingerprint import model_fingerprint
from layerimp.progress import About, Progress
from layerimp.registry.attribution import attributing, named

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from layerimp.evaluator import Evaluator


class Evaluation:
    """Lets evaluators measure a model.

    Args:
        model: The model, which others may prune and restore between two measurements.
        tokenizer: Its tokenizer.
        progress: Where to report progress.
        failed: Takes in why an evaluator did not go on, by label.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        progress: Progress,
        failed: dict[str, str],
    ) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._progress, self._failed = progress, failed

    def beside(self, model: PreTrainedModel) -> Evaluation:
        """The same of another model, such as a healed one."""
        return Evaluation(model, self._tokenizer, self._progress, self._failed)

    def of(self, evaluators: dict[str, Evaluator], kind: str, who: str = ORIGINAL) -> list[Metric]:
        """What the evaluators of a kind say of the model as it is, `who` it is; the intact one's quality is kept.

        An evaluator that fails is taken out of `evaluators`, and the others go on.

        Raises:
            PluginError: the only evaluator failed, or one changed the model.
            NonFiniteError: the only evaluator gave a NaN.
        """
        found: dict[tuple[str, str], Metric] = {}
        for label in [label for label, evaluator in evaluators.items() if evaluator.kind == kind]:
            evaluator = evaluators[label]
            evaluator.progress = About(self._progress, who)
            with leaving_no_trace(self._model, self._progress, named("evaluator", label, type(evaluator))):
                try:
                    with attributing("evaluator", label, type(evaluator), f"on {who}"):
                        metrics = self._metrics(label, evaluator, who)
                        found |= _by_task(metrics, "" if label == evaluator.name else f" ({label})", found)
                except (PluginError, NonFiniteError) as error:
                    if not error.names_plugin or len(evaluators) == 1:
                        raise
                    del evaluators[label]
                    self._failed[label] = str(error)
                    self._progress.note(f"the evaluator {label} is left out: {error}")
        return list(found.values())

    def _metrics(self, label: str, evaluator: Evaluator, who: str) -> list[Metric]:
        """What one evaluator says, now or in an earlier run."""
        cache = MetricsCache()
        tag = kept_as(evaluator, who)
        if tag is not None and (known := cache.get(self._weights, evaluator.name, tag)) is not None:
            with self._progress.stage(f"{label} of the intact model: known from an earlier run"):
                return known
        metrics = evaluator.evaluate(self._model, self._tokenizer)
        if not isinstance(metrics, list) or not all(isinstance(metric, Metric) for metric in metrics):
            raise PluginError("evaluate() gives no list of Metric")
        if tag is not None:
            _by_task(metrics, "", ())  # nothing unsound is kept
            cache.put(metrics, self._weights, evaluator.name, tag)
        return metrics

    @cached_property
    def _weights(self) -> str:
        """The fingerprint of the intact model; read while it is intact."""
        return model_fingerprint(self._model, self._tokenizer)


def _by_task(
    metrics: Sequence[Metric], suffix: str, known: Container[tuple[str, str]]
) -> dict[tuple[str, str], Metric]:
    """Metrics by task, with a suffix, and name; none of them is a NaN, or known already."""
    found: dict[tuple[str, str], Metric] = {}
    for metric in metrics:
        key = metric.task + suffix, metric.name
        if math.isnan(metric.value):
            raise NonFiniteError(f"{metric.name} of {metric.task} is NaN")
        if key in found or key in known:
            raise PluginError(f"it measures {metric.name} of {metric.task} a second time")
        found[key] = replace(metric, task=key[0], members=tuple(member + suffix for member in metric.members))
    return found

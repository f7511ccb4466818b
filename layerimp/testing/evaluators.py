"""The contracts of an evaluator, checked on tiny models in memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from layerimp.blocks.snapshot import Snapshot
from layerimp.errors import LayerimpError
from layerimp.evaluator import Evaluator
from layerimp.metric import Metric
from layerimp.models.sizing import shapes_only
from layerimp.surgery.removal import pruned
from layerimp.testing.assertions import leaving_the_generator, require, require_unharmed
from layerimp.testing.tiny import tiny_model, tiny_tokenizer


def _fresh(evaluator: Evaluator) -> Evaluator:
    fresh = type(evaluator)(evaluator.config)
    fresh.prepare()
    return fresh


def _measured(evaluator: Evaluator, model: Any) -> list[Metric]:
    metrics = evaluator.evaluate(model, tiny_tokenizer())
    require(isinstance(metrics, list), f"evaluate() gives {type(metrics).__name__}, not a list of Metric")
    for metric in metrics:
        require(isinstance(metric, Metric), f"evaluate() gives a list with {type(metric).__name__} in it, not Metric")
    return metrics


def metrics_are_sound(evaluator: Evaluator) -> None:
    """The list has at least one metric and none twice; values, standard errors and documents are consistent."""
    metrics = _measured(_fresh(evaluator), tiny_model())
    require(bool(metrics), "evaluate() gives no metrics")
    seen = set()
    for metric in metrics:
        what = f"{metric.name} of {metric.task}"
        require((metric.task, metric.name) not in seen, f"it measures {what} twice")
        seen.add((metric.task, metric.name))
        require(not math.isnan(metric.value), f"{what} is NaN")
        require(metric.stderr is None or metric.stderr >= 0, f"the standard error of {what} is {metric.stderr}")
        _documents_fit(metric, what)


def _documents_fit(metric: Metric, what: str) -> None:
    """A metric's value follows from its documents, and its floor is a finite number."""
    values, likelihood = metric.documents, metric.likelihood
    if values is not None and math.isfinite(metric.value):
        mean = sum(values) / len(values) if values else math.nan
        require(math.isclose(mean, metric.value, abs_tol=1e-9), f"{what} is {metric.value}, its documents' mean {mean}")
    if likelihood is not None:
        arrays = [likelihood.totals, likelihood.units, likelihood.unigram or likelihood.totals]
        lengths = [len(each) for each in arrays]
        require(len(set(lengths)) == 1 and lengths[0] > 0, f"the arrays of {what} have {lengths} documents")
        value = likelihood.metric(likelihood.loss)
        require(
            math.isclose(value, metric.value, rel_tol=1e-6), f"{what} is {metric.value}, its likelihood says {value}"
        )
    for name, numbers in (("hashes", metric.hashes), ("answers", metric.answers)):
        if numbers is not None and metric.count is not None:
            require(len(numbers) == metric.count, f"{what} has {len(numbers)} {name} for {metric.count} documents")
            sound = all(isinstance(number, int) and 0 <= number < 1 << 53 for number in numbers)
            require(sound, f"the {name} of {what} are not whole numbers from 0 up to 2^53")
    require(metric.floor is None or math.isfinite(metric.floor), f"the floor of {what} is {metric.floor}")


def model_stays(evaluator: Evaluator) -> None:
    """Weights, hooks, modes, the configuration and the random generators are as before."""
    model = tiny_model()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    snapshot = Snapshot.of(model)
    with leaving_the_generator():
        _measured(_fresh(evaluator), model)
    require_unharmed(model, snapshot, weights)


def pruned_models_are_measured(evaluator: Evaluator) -> None:
    """A model without some of its blocks gets the same metrics, with any values."""
    model = tiny_model()
    ready = _fresh(evaluator)
    before = _measured(ready, model)
    with pruned(model, [1, 2]):
        after = _measured(ready, model)
    names = [
        sorted((metric.task, metric.name, metric.higher_is_better) for metric in metrics) for metrics in (before, after)
    ]
    require(names[0] == names[1], f"it measures {names[1]} of a pruned model, and {names[0]} of the intact one")


def quality_is_repeatable(evaluator: Evaluator) -> None:
    """The quality of a model is the same number each time; costs may vary."""
    if evaluator.kind != "quality":
        return
    first, second = (_measured(_fresh(evaluator), tiny_model()) for _ in range(2))
    require(first == second, f"it measures {second} after {first}")


def fingerprint_is_stable(evaluator: Evaluator) -> None:
    """`fingerprint` returns None, or a text that is the same for the same options; all tasks are in `reported`."""
    tags = [_fresh(evaluator).fingerprint() for _ in range(2)]
    require(all(tag is None or isinstance(tag, str) for tag in tags), f"fingerprint() gives {tags[0]!r}, not text")
    require(tags[0] == tags[1], f"fingerprint() gives {tags[1]!r} after {tags[0]!r}")
    ready = _fresh(evaluator)
    if tags[0] is not None and getattr(evaluator.config, "tasks", None):
        others = {metric.task for metric in _measured(ready, tiny_model())} - ready.reported()
        require(not others, f"it measures {', '.join(sorted(others))}, which reported() does not name")


def without_a_tokenizer(evaluator: Evaluator) -> None:
    """Without a tokenizer the evaluator measures, or raises a `LayerimpError` that says why."""
    try:
        _fresh(evaluator).evaluate(tiny_model(), None)
    except LayerimpError:
        return


def weights_do_not_matter(evaluator: Evaluator) -> None:
    """An evaluator that needs no weights measures the same without them; what needs them it leaves out."""
    if evaluator.needs_weights:
        return
    model = tiny_model()
    ready = _fresh(evaluator)
    with_weights = {(metric.task, metric.name): metric for metric in _measured(ready, model)}
    without = {(metric.task, metric.name): metric for metric in _measured(ready, shapes_only(model))}
    require(bool(without), "evaluate() gives no metrics for a model on the meta device")
    for key, metric in without.items():
        other = with_weights.get(key)
        require(metric == other, f"it measures {metric} without weights, and {other} with")


def evaluator_contracts() -> dict[str, Callable[[Any], None]]:
    """Return the contracts that an evaluator has to keep, by name."""
    return {
        "metrics are sound": metrics_are_sound,
        "the model stays as it is": model_stays,
        "pruned models are measured": pruned_models_are_measured,
        "quality is repeatable": quality_is_repeatable,
        "the fingerprint is stable": fingerprint_is_stable,
        "a missing tokenizer is handled": without_a_tokenizer,
        "weights do not matter if none are needed": weights_do_not_matter,
    }

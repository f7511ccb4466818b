"""The floor of a metric: the value that a model without any knowledge reaches on a task."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


def chance(
    task: Any, metric: str, samples: Sequence[Mapping[str, Any]], aggregation: Callable[[Sequence[Any]], float]
) -> float | None:
    """Return the value of a metric for a model without any knowledge.

    The floor of an accuracy is the mean over documents of 1 / options, or, on a task without options, the share of the
    most frequent target. The floor of the F1 or the correlation of a classification is that of the best constant
    answer. The floor of the F1 or the exact match of generated text is 0.

    Args:
        task: lm-eval's task.
        metric: lm-eval's name of the metric.
        samples: The documents as lm-eval logged them.
        aggregation: Computes the metric from the values of the documents.

    Returns:
        The value; None if it is not known.
    """
    if task.OUTPUT_TYPE == "generate_until" and metric in ("f1", "exact_match", "em"):
        return 0.0
    if metric in ("f1", "mcc"):
        return _constant_answer([sample[metric] for sample in samples], aggregation)
    if not metric.startswith("acc") and metric != "exact_match":
        return None
    if task.OUTPUT_TYPE == "multiple_choice":
        # The chance level of a task with its own scoring function is not known.
        return None if callable(task.config.process_results) else _guessing(samples)
    targets = Counter(str(sample["target"]) for sample in samples)
    return targets.most_common(1)[0][1] / len(samples)


def _constant_answer(pairs: Sequence[Any], aggregation: Callable[[Sequence[Any]], float]) -> float | None:
    """Return the best value of a constant answer; None unless every value is a pair of a target and an answer."""
    if not all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in pairs):
        return None
    targets = [target for target, _ in pairs]
    return max(float(aggregation([(target, answer) for target in targets])) for answer in set(targets))


def _guessing(samples: Sequence[Mapping[str, Any]]) -> float:
    """Return the mean over documents of the share of options that are right."""
    shares = []
    for sample in samples:
        target = sample["target"]
        right = len({*target}) if isinstance(target, list | tuple) else 1
        shares.append(min(right / _options(sample), 1.0))
    return sum(shares) / len(shares)


def _options(sample: Mapping[str, Any]) -> int:
    """Return the number of options of a document, without requests for the probability of an option by itself."""
    in_context = [arguments for arguments in sample["arguments"] if arguments[0]]
    return len(in_context or sample["arguments"])

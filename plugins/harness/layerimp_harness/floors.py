"""What a model that knows nothing gets on a task: the floor above which something is retained."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


def chance(
    task: Any, metric: str, samples: Sequence[Mapping[str, Any]], aggregation: Callable[[Sequence[Any]], float]
) -> float | None:
    """The value of a metric for a model that knows nothing.

    Where there are options to choose from, an accuracy is the mean of 1 / options over the documents; where there are
    none, the share of the most frequent target. F1 and the correlation of a classification are those of the best answer
    that is always the same. F1 and exact match of generated text are 0.

    Args:
        task: lm-eval's task.
        metric: lm-eval's name of the metric.
        samples: The documents as lm-eval logged them.
        aggregation: What makes the metric of the values of the documents.

    Returns:
        The value; None where it is not known.
    """
    if task.OUTPUT_TYPE == "generate_until" and metric in ("f1", "exact_match", "em"):
        return 0.0
    if metric in ("f1", "mcc"):
        return _constant_answer([sample[metric] for sample in samples], aggregation)
    if not metric.startswith("acc") and metric != "exact_match":
        return None
    if task.OUTPUT_TYPE == "multiple_choice":
        # A task that scores answers in its own way has its own chance.
        return None if callable(task.config.process_results) else _guessing(samples)
    targets = Counter(str(sample["target"]) for sample in samples)
    return targets.most_common(1)[0][1] / len(samples)


def _constant_answer(pairs: Sequence[Any], aggregation: Callable[[Sequence[Any]], float]) -> float | None:
    """The best value of an answer that is the same for all documents; None unless each is a target and an answer."""
    if not all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in pairs):
        return None
    targets = [target for target, _ in pairs]
    return max(float(aggregation([(target, answer) for target in targets])) for answer in set(targets))


def _guessing(samples: Sequence[Mapping[str, Any]]) -> float:
    """The mean over documents of the share of the options that are right."""
    shares = []
    for sample in samples:
        target = sample["target"]
        right = len({*target}) if isinstance(target, list | tuple) else 1
        shares.append(min(right / _options(sample), 1.0))
    return sum(shares) / len(shares)


def _options(sample: Mapping[str, Any]) -> int:
    """How many options a document has; without the requests that only ask how probable an option is by itself."""
    in_context = [arguments for arguments in sample["arguments"] if arguments[0]]
    return len(in_context or sample["arguments"])

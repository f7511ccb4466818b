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

    The floor of an accuracy is the larger of two: the mean over documents of 1 / options, and the share of the most
    frequent answer. On a task without options it is the latter. The floor of the F1 or the correlation of a
    classification is that of the best constant answer. The floor of the F1 or the exact match of generated text is 0.

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
        if callable(task.config.process_results):
            return None
        return max(_guessing(samples), _always_one([_answers(sample) for sample in samples]))
    return _always_one([{str(sample["target"])} for sample in samples])


def _always_one(answers: Sequence[set[str]]) -> float:
    """Return the share of documents on which the most frequent of the right answers is right.

    0 if each of them is right only once, since none is frequent then, however few documents there are.
    """
    counts = Counter(answer for right in answers for answer in right)
    most = counts.most_common(1)[0][1]
    return most / len(answers) if most > 1 else 0.0


def _answers(sample: Mapping[str, Any]) -> set[str]:
    """Return the right answers of a document in words, since the number of an option says nothing of its content."""
    target = sample["target"]
    options = _worded(sample)
    rights = map(str, target if isinstance(target, list | tuple) else [target])
    return {options[int(right)] if right.isdigit() and int(right) < len(options) else right for right in rights}


def _worded(sample: Mapping[str, Any]) -> list[str]:
    """Return the wording of each option: what is different between them, the continuation or else the context."""
    pairs = [tuple(map(str, arguments[:2])) for arguments in sample["arguments"]]
    varying = len({continuation for _, continuation in pairs}) > 1
    return [continuation if varying else context for context, continuation in pairs]


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

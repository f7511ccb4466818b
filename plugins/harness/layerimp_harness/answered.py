"""The answer that a model gave to each document of a task, as a number that can be compared with another model's."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_CHOSEN: Mapping[str, Callable[[str], int] | None] = {
    "acc": None,
    "acc_norm": len,
    "acc_bytes": lambda choice: len(choice.encode()),
}
"""The accuracies of a choice, each with the length by which it divides the log-likelihood of an option."""
_BYTES = 6  # of the hash of a generated text: 48 bits


def answers(task: Any, metric: str, samples: Sequence[Mapping[str, Any]]) -> tuple[int, ...] | None:
    """Return the answer to each document by which a metric is right or wrong.

    Args:
        task: lm-eval's task.
        metric: lm-eval's name of the metric.
        samples: The documents as lm-eval logged them.

    Returns:
        The number of the chosen option, or a hash of the generated text, after the task's filter; None if answers are
        not known, as for a task with its own scoring function.
    """
    if task.OUTPUT_TYPE == "generate_until":
        texts = [sample["filtered_resps"][0] for sample in samples]
        return tuple(map(_hash, texts)) if all(isinstance(text, str) for text in texts) else None
    if task.OUTPUT_TYPE != "multiple_choice" or callable(task.config.process_results):
        return None
    if metric == "acc_mutual_info":
        return tuple(_gain(sample) for sample in samples)
    if metric not in _CHOSEN:
        return None
    return tuple(_chosen(task, sample, _CHOSEN[metric]) for sample in samples)


def _chosen(task: Any, sample: Mapping[str, Any], length: Callable[[str], int] | None) -> int:
    """Return the number of the option with the highest log-likelihood, which may be divided by its length."""
    choices = task.doc_to_choice(sample["doc"])
    totals = _totals(sample)[: len(choices)]  # the others are those of the options without the question
    return int(
        np.argmax(totals if length is None else totals / np.array([float(length(choice)) for choice in choices]))
    )


def _gain(sample: Mapping[str, Any]) -> int:
    """Return the number of the option whose log-likelihood the question raises most."""
    asked, alone = np.split(_totals(sample), 2)
    return int(np.argmax(asked - alone))


def _totals(sample: Mapping[str, Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([total for total, _ in sample["filtered_resps"]], dtype=np.float64)


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_BYTES).digest())

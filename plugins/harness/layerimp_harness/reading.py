"""Tell how much an evaluation reads, from a few documents of each task, before a model runs."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from layerimp.evaluator import Reading

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from transformers import PreTrainedTokenizerBase

    from layerimp_harness.classifier import Answering

SAMPLE = 16
"""The documents of a task that are looked at; a task with no more of them is known exactly."""
GENERATED = 256
"""The tokens that lm-eval lets a model generate if a task sets no limit."""


def reading(
    tasks: Mapping[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    answers: Mapping[str, Answering],
) -> Reading:
    """Return how much the evaluation of tasks reads.

    Args:
        tasks: The tasks by name. Their requests are built for the sample, and again by lm-eval later.
        tokenizer: The model's tokenizer.
        max_length: The most tokens in a row.
        answers: How a classifier answers the tasks; empty for a model that predicts tokens.
    """

    def length(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    total = Reading()
    for name, task in tasks.items():
        docs = task.eval_docs
        documents = len(docs)
        chosen = sorted({documents * number // SAMPLE for number in range(SAMPLE)}) if documents else []
        if not chosen:
            continue
        if name in answers:
            rows = [[str(docs[index][field]) for field in answers[name].fields] for index in chosen]
            lengths = [min(sum(map(length, texts)), max_length) for texts in rows]
            amount = Reading(len(chosen), rows=len(lengths), tokens=sum(lengths))
        else:
            every = len(chosen) == documents  # lm-eval goes through all documents to find the chosen ones
            task.build_all_requests(**({"limit": documents} if every else {"samples": chosen}))
            amount = _requested(task.instances, length, max_length)
        total += amount * (documents / len(chosen))
    return total


def _requested(instances: Sequence[Any], length: Callable[[str], int], max_length: int) -> Reading:
    """Return what requests read. Continuations of the same context share it."""
    documents = {instance.doc_id for instance in instances}
    rows = tokens = predicted = generated = 0
    continued: dict[str, int] = defaultdict(int)
    for instance in instances:
        text, *rest = instance.args
        if instance.request_type == "loglikelihood":
            continued[text] += length(rest[0])
        elif instance.request_type == "generate_until":
            tokens += min(length(text), max_length)
            generated += int(rest[0].get("max_gen_toks", GENERATED))
            rows += 1
        else:
            own = length(text)
            rows, tokens, predicted = rows + max(1, -(-own // max_length)), tokens + own, predicted + own
    for context, continuations in continued.items():
        rows, predicted = rows + 1, predicted + continuations
        tokens += min(length(context), max_length) + continuations
    return Reading(len(documents), rows=rows, tokens=tokens, predicted=predicted, generated=generated)

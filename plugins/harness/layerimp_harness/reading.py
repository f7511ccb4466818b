"""Tell how much an evaluation reads, from the first documents of each task, before a model runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from layerimp.evaluator import Reading

if TYPE_CHECKING:
    from collections.abc import Iterable

    from transformers import PreTrainedTokenizerBase

SAMPLE = 16
"""The documents of a task that are looked at."""
GENERATED = 256
"""The tokens that lm-eval lets a model generate if a task sets no limit."""


def reading(tasks: Iterable[Any], tokenizer: PreTrainedTokenizerBase) -> Reading:
    """Return how much the evaluation of tasks reads. Their requests are built for the sample, and again by lm-eval."""

    def length(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def predicted(text: str, answer: str | dict[str, Any] = "") -> int:
        """Return the positions that a request asks about: its answer, what is generated, or all of the text."""
        if isinstance(answer, dict):
            return int(answer.get("max_gen_toks", GENERATED))
        return length(answer or text)

    total = Reading(0, 0.0, 0.0)
    for task in tasks:
        task.build_all_requests(limit=SAMPLE)
        documents, instances = len(task.eval_docs), task.instances
        share = documents / max(len({instance.doc_id for instance in instances}), 1)
        asked = sum(predicted(*instance.args) for instance in instances)
        # Answers to the same question share it.
        questions = {instance.args[0] for instance in instances if len(instance.args) > 1}
        read = sum(map(length, questions)) + asked
        total = Reading(total.documents + documents, total.tokens + share * read, total.predicted + share * asked)
    return total

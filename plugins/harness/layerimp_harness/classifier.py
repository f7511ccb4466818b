"""lm-eval's view of a classifier in memory: its labels are the choices of a multiple-choice task."""

from __future__ import annotations

import copy
import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from layerimp.errors import NonFiniteError, TaskError, listing
from layerimp.models import longest_row
from layerimp_harness.batches import Batches, logits_bytes
from layerimp_harness.lm_eval_names import LM

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from layerimp.progress import Advance

FIELDS_KEY = "classifier_fields"
"""The key in a task's metadata that names the field, or the pair of fields, that a classifier reads."""

OF_WORDING = frozenset({"acc_norm", "acc_bytes", "acc_mutual_info"})
"""Metrics of lm-eval that depend on the wording of the choices, which a classifier does not see."""

_UNNAMED = re.compile(r"LABEL_\d+")


@dataclass(frozen=True)
class Answering:
    """How a classifier answers a task.

    Attributes:
        fields: The fields of a document that the classifier reads.
        choices: The task's choices, in order.
        labels: The number of the classifier's label for each choice.
    """

    fields: tuple[str, ...]
    choices: tuple[str, ...]
    labels: tuple[int, ...]


def answering(task: Any, model: PreTrainedModel, fields: Sequence[str], names: Mapping[str, str]) -> Answering:
    """Return how a classifier answers a task.

    Args:
        task: lm-eval's task.
        model: A classifier.
        fields: The fields that the classifier reads; empty for the fields that the task itself names.
        names: The model's label for each choice with a different name.

    Raises:
        TaskError: a classifier cannot answer the task; the text says what would help.
    """
    name = task.config.task
    if task.OUTPUT_TYPE != "multiple_choice":
        raise TaskError(f"task {name!r} is no multiple choice, and a classifier answers nothing else")
    if "acc_mutual_info" in task.aggregation():
        raise TaskError(f"task {name!r} measures acc_mutual_info, which a classifier does not have")
    if task.get_config("num_fewshot"):
        raise TaskError(f"task {name!r}: a classifier reads no examples (--num-fewshot 0)")
    choices: tuple[str, ...] = ()
    read: tuple[str, ...] = ()
    for number, document in enumerate(task.eval_docs):
        here = _choices(task, document)
        choices = choices or here
        if here != choices:
            raise TaskError(f"task {name!r}: the choices of document {number} are others than those of document 0")
        read = read or _fields(task, document, fields)
        for field in read:
            text = document[field]
            if not isinstance(text, str) or not text.strip():
                held = "nothing" if text == "" else f"a {type(text).__name__}"
                raise TaskError(
                    f"task {name!r}: document {number} holds {held} in {field!r}, where a classifier reads text"
                )
    return Answering(read, choices, _labels(name, choices, model, names))


def choices_of(task: Any) -> tuple[str, ...]:
    """Return the choices of a task's first document; empty if the task is no multiple choice, or has no documents."""
    if task.OUTPUT_TYPE != "multiple_choice":
        return ()
    first = next(iter(task.eval_docs), None)
    return () if first is None else _choices(task, first)


def _choices(task: Any, document: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(choice).strip() for choice in task.doc_to_choice(document))


def _fields(task: Any, document: Mapping[str, Any], wanted: Sequence[str]) -> tuple[str, ...]:
    name, held = task.config.task, listing(document)
    stated = (task.config.metadata or {}).get(FIELDS_KEY) or ()
    read = tuple(wanted or ((stated,) if isinstance(stated, str) else stated))
    if len(read) not in (1, 2):
        raise TaskError(
            f"task {name!r} does not say which fields of a document (it holds: {held}) a classifier reads; name one, "
            "or both of a pair: --set harness.fields='[FIELD]'"
        )
    for field in read:
        if field not in document:
            raise TaskError(f"task {name!r}: a document has no field {field!r} (it holds: {held})")
    return read


def _labels(task: str, choices: Sequence[str], model: PreTrainedModel, names: Mapping[str, str]) -> tuple[int, ...]:
    """Return the number of the label for each choice: by name, or in order if the model's labels have no names."""
    labels = {int(number): str(label) for number, label in (model.config.id2label or {}).items()}
    if not names and len(choices) == len(labels) and all(map(_UNNAMED.fullmatch, labels.values())):
        return tuple(range(len(choices)))
    known = {label.lower(): number for number, label in labels.items()}
    numbers = [known[name] for choice in choices if (name := names.get(choice, choice).lower()) in known]
    if len(set(numbers)) < len(choices):
        hint = json.dumps(dict.fromkeys(choices, "LABEL"), ensure_ascii=False)
        raise TaskError(
            f"task {task!r} has the choices {listing(choices)}, but the model the labels {listing(labels.values())}; "
            f"say which is which: --set harness.labels='{hint}'"
        )
    return tuple(numbers)


class ClassifierInMemory(LM):  # type: ignore[misc]
    """A loaded classifier that reads a document's own fields instead of a prompt.

    Args:
        model: A model for sequence classification, used in its own dtype on its own device.
        tokenizer: The model's tokenizer; left unchanged.
        tasks: How the classifier answers each task, by the task's name.
        batch_size: The maximum number of documents per forward.
        max_length: The maximum number of tokens per document, at which documents are cut; less if the model supports
            less.
        advance: Called with the number of newly finished requests, and with 0 at the start.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        tasks: Mapping[str, Answering],
        batch_size: int,
        max_length: int,
        advance: Advance,
    ) -> None:
        super().__init__()
        self._model = model
        self._tokenizer = copy.deepcopy(tokenizer)  # a fast tokenizer stores the truncation settings
        self._tasks = tasks
        self._length = min(max_length, longest_row(model) or max_length)
        self._vocabulary = int(next(model.get_input_embeddings().parameters()).shape[0])
        # Without a padding token, a decoder cannot tell where each row of a batch ends.
        rows = batch_size if model.config.pad_token_id is not None else 1
        self._batches = Batches(rows, model.device)
        self._row_bytes = logits_bytes(1, len(model.config.id2label or ()))
        self._advance = advance

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Return, for each choice, the log-probability of its label, and whether no label has a higher one."""
        self._advance(0)
        alike: dict[tuple[Any, ...], list[int]] = defaultdict(list)
        for i, request in enumerate(requests):
            alike[request.task_name, request.doc_id].append(i)
        # Rows of equal length need no padding, which would change the answers of some models.
        lengths: dict[int, list[tuple[dict[str, list[int]], list[int]]]] = defaultdict(list)
        for group in alike.values():
            inputs = self._encode(requests[group[0]])
            lengths[len(inputs["input_ids"])].append((inputs, group))
        answers: list[tuple[float, bool]] = [(math.nan, False)] * len(requests)

        def score(batch: Sequence[tuple[dict[str, list[int]], list[int]]]) -> None:
            logs = self._log_probs([inputs for inputs, _group in batch])
            for row, (_inputs, group) in zip(logs, batch, strict=True):
                request = requests[group[0]]
                if bool(row.isnan().any()):
                    raise NonFiniteError(f"task {request.task_name!r}: the logits of document {request.doc_id} are NaN")
                values = row[list(self._tasks[request.task_name].labels)].tolist()
                for i in group:
                    value = values[requests[i].idx]
                    answers[i] = value, value == float(row.max())
                self._advance(len(group))

        for length in sorted(lengths, reverse=True):
            self._batches.run(lengths[length], score, lambda _row: self._row_bytes)
        return answers

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> Any:
        """Refuse the requests: a classifier neither predicts tokens nor generates text.

        Raises:
            TaskError: always.
        """
        raise TaskError(f"task {requests[0].task_name!r} needs a model that predicts the next token")

    generate_until = loglikelihood_rolling

    def _encode(self, request: Any) -> dict[str, list[int]]:
        texts = [request.doc[field] for field in self._tasks[request.task_name].fields]
        inputs = dict(self._tokenizer(*texts, truncation=True, max_length=self._length))
        where = f"task {request.task_name!r}: document {request.doc_id}"
        if not inputs["input_ids"]:
            raise TaskError(f"{where} holds no token that the tokenizer knows of")
        if (token := max(inputs["input_ids"])) >= self._vocabulary:
            raise TaskError(
                f"{where}: the tokenizer makes token {token}, but the model has only {self._vocabulary}: "
                "they do not belong together"
            )
        return inputs

    def _log_probs(self, rows: list[dict[str, list[int]]]) -> torch.Tensor:
        """Return the log-probabilities of all labels [row, label]."""
        batch = {key: torch.tensor([row[key] for row in rows], device=self._model.device) for key in rows[0]}
        with torch.no_grad():
            logits: torch.Tensor = self._model(**batch).logits
        return logits.double().log_softmax(dim=-1)

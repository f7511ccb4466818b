"""The training split of a task, as calibration text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

from layerimp.errors import TaskError
from layerimp_harness.attribution import explained
from layerimp_harness.isolation import contained_by

if TYPE_CHECKING:
    from layerimp.evaluator import Document
    from layerimp_harness.classifier import Answering


class TrainingDocuments(Sequence["Document"]):
    """The training split of a task; each document is rendered on access.

    Args:
        task: lm-eval's task.
        answering: How a classifier answers the task; None for other models and tasks.
        separator: The text between the two texts of a pair.
        config: The options of the harness.

    Raises:
        TaskError: the task has no training split; or, on access, a document cannot be rendered.
    """

    def __init__(self, task: Any, answering: Answering | None, separator: str, config: Any) -> None:
        if not task.has_training_docs():
            raise TaskError(f"task {task.config.task!r} has no training split to calibrate on; name a file")
        self._task = task
        self._answering = answering
        self._separator = separator
        self._config = config
        with contained_by(self._config):
            self._docs = task.training_docs()

    def __len__(self) -> int:
        return len(self._docs)

    @overload
    def __getitem__(self, index: int) -> Document: ...
    @overload
    def __getitem__(self, index: slice) -> list[Document]: ...
    def __getitem__(self, index: int | slice) -> Document | list[Document]:
        """Return a document: its text, and for a classifier also the number of its label, otherwise None."""
        with contained_by(self._config):
            if isinstance(index, slice):
                return [self._document(number) for number in range(*index.indices(len(self)))]
            return self._document(range(len(self))[index])

    def __iter__(self) -> Iterator[Document]:
        """Iterate over all documents, isolated from lm-eval once: once a document takes twenty times as long."""
        return iter(self[:])

    def _document(self, index: int) -> Document:
        try:
            if self._answering is not None:
                return self._labelled(self._docs[index], self._answering)
            return worded(self._task, self._docs[index]), None
        except Exception as error:
            raise explained(f"{self._task.config.task}, training document {index}", error) from error

    def _labelled(self, doc: dict[str, Any], answering: Answering) -> Document:
        texts = [doc[field] for field in answering.fields]
        return self._separator.join(texts), answering.labels[_number(self._task.doc_to_target(doc), answering.choices)]


def worded(task: Any, doc: dict[str, Any]) -> str:
    """Return the prompt of a document with its answer, as in lm-eval's few-shot examples."""
    target, prompt = task.doc_to_target(doc), task.doc_to_text(doc)
    if task.OUTPUT_TYPE == "multiple_choice":
        choices = task.doc_to_choice(doc)
        if isinstance(prompt, int):  # the choices are contexts, and the target is their common continuation
            prompt = choices[_number(prompt, choices)]
        else:
            target = choices[_number(target, choices)]
    answer = target[0] if isinstance(target, list) else target
    return f"{prompt}{task.config.target_delimiter}{answer}" if prompt else str(answer)


def _number(target: Any, choices: Sequence[str]) -> int:
    """Return the number of the right choice, the first one if there are several.

    Args:
        target: The number or the text of the right choice, or a list of these.
        choices: The choices.

    Raises:
        ValueError: the target is none of the choices.
    """
    answer = target[0] if isinstance(target, list) else target
    number = list(choices).index(answer.strip()) if isinstance(answer, str) and not answer.isdigit() else int(answer)
    if not 0 <= number < len(choices):
        raise ValueError(f"the answer {number} is none of the {len(choices)} choices")
    return number

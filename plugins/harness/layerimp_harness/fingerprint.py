"""Compute a digest of everything that can change the metrics, except the model and its tokenizer."""

from __future__ import annotations

import hashlib
import inspect
import json
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layerimp_harness.tasks import TaskSet

SCORING = 5
"""The version of the scoring; incremented with every change that can alter a metric, even in its last digits."""


def digest(loaded: TaskSet, config: Any) -> str:
    """Return the SHA-256, in hex, of the tasks, their documents, their code, the options and the libraries.

    Args:
        loaded: The tasks.
        config: The options of the harness. The digest ignores options that cannot change a metric: the batch size, and
            those that say which documents are measured and where they lie, since the documents are in the digest.
    """
    state = hashlib.sha256()

    def add(*parts: Any) -> None:
        state.update(json.dumps(parts, sort_keys=True, default=_stable).encode() + b"\n")

    add("libraries", version("lm_eval"), version("datasets"))
    add("scoring", SCORING)
    add(
        "options",
        config.model_dump(include={"num_fewshot", "seed", "bootstrap", "max_length", "fields", "labels"}),
    )
    for name, group in loaded.groups.items():
        add("group", name, _without_paths(group.to_dict() or {}))
    for name, task in loaded.tasks.items():
        add("task", name, task.VERSION, _without_paths(task.dump_config()))
        for number, document in task.doc_iterator():
            add(number, document)
        if task.get_config("num_fewshot"):
            add("few-shot", list(task.sampler.df if hasattr(task, "sampler") else task.fewshot_docs()))
    for directory in sorted({path.parent for path in loaded.files}):
        for source in sorted(directory.glob("*.py")):
            add("source", source.name, hashlib.sha256(source.read_bytes()).hexdigest())
    return state.hexdigest()


def _without_paths(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration without the paths of its file and of its data, whose content is digested instead."""
    metadata = {key: v for key, v in (config.get("metadata") or {}).items() if key != "config_source"}
    kwargs = {key: v for key, v in (config.get("dataset_kwargs") or {}).items() if key != "data_files"}
    return {**config, "metadata": metadata, "dataset_kwargs": kwargs}


def _stable(value: Any) -> str:
    """Return a text for a value that JSON cannot represent; for a function its source, as `str` gives an address."""
    if callable(value):
        try:
            return inspect.getsource(value)
        except (OSError, TypeError):
            return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__name__)}"
    return str(value)

"""A digest of everything, besides the model and its tokenizer, that can change the metrics."""

from __future__ import annotations

import hashlib
import inspect
import json
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layerimp_harness.tasks import TaskSet

SCORING = 3
"""Raised with every change that can change a metric, be it in its last digits, or what comes with one."""


def digest(loaded: TaskSet, config: Any) -> str:
    """SHA-256, in hex, of the tasks, their documents, their code, the options and the libraries.

    Args:
        loaded: The tasks.
        config: The options of the harness. Those that only say how to get there are left out: the batch
            size, and the places of files whose content counts.
    """
    state = hashlib.sha256()

    def add(*parts: Any) -> None:
        state.update(json.dumps(parts, sort_keys=True, default=_stable).encode() + b"\n")

    add("libraries", version("lm_eval"), version("datasets"))
    add("scoring", SCORING)
    add(
        "options",
        config.model_dump(include={"limit", "num_fewshot", "seed", "bootstrap", "max_length", "fields", "labels"}),
    )
    for name, group in loaded.groups.items():
        add("group", name, _without_paths(group.to_dict() or {}))
    for name, task in loaded.tasks.items():
        add("task", name, task.VERSION, _without_paths(task.dump_config()))
        for number, document in task.doc_iterator(limit=config.limit):
            add(number, document)
        if task.get_config("num_fewshot"):
            add("few-shot", list(task.sampler.df if hasattr(task, "sampler") else task.fewshot_docs()))
    for directory in sorted({path.parent for path in loaded.files}):
        for source in sorted(directory.glob("*.py")):
            add("source", source.name, hashlib.sha256(source.read_bytes()).hexdigest())
    return state.hexdigest()


def _without_paths(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration without the place of its file and of its data, whose content is digested instead."""
    metadata = {key: v for key, v in (config.get("metadata") or {}).items() if key != "config_source"}
    kwargs = {key: v for key, v in (config.get("dataset_kwargs") or {}).items() if key != "data_files"}
    return {**config, "metadata": metadata, "dataset_kwargs": kwargs}


def _stable(value: Any) -> str:
    """A text for what JSON does not know; the usual one of a function holds an address, new in every run."""
    if callable(value):
        try:
            return inspect.getsource(value)
        except (OSError, TypeError):
            return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__name__)}"
    return str(value)

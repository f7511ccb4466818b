"""What tasks measure and where their rows come from, told without reading any row."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from jinja2 import meta

from layerimp.evaluator import TaskDetails
from layerimp_harness.deferred import ASKING
from layerimp_harness.lm_eval_names import DEFAULT_METRIC_REGISTRY
from layerimp_harness.places import reads_local_rows

if TYPE_CHECKING:
    from layerimp_harness.deferred import Deferred

UNNAMED = "DIR"
"""What stands for the data directory if none is given."""


def details(task: Deferred, shots: int, data_dir: Path | None) -> TaskDetails:
    """Return what a task measures.

    Args:
        task: The task, which need not be loaded.
        shots: The number of examples before each question.
        data_dir: The data directory; None for any.
    """
    config, source = task.stated, task.source
    directory = Path(UNNAMED) if data_dir is None else data_dir.expanduser().resolve()
    local = reads_local_rows(config)
    return TaskDetails(
        task=source.task,
        dataset=str(config.get("dataset_path") or getattr(task, "DATASET_PATH", None) or ""),
        configuration=source.configuration,
        measured=source.measured,
        examples=source.examples,
        training=str(config.get("training_split") or ""),
        shots=shots,
        kind=str(config.get("output_type") or getattr(task, "OUTPUT_TYPE", None) or ""),
        metrics=_metrics(config),
        columns=_columns(config),
        functions=tuple(key for key, value in config.items() if callable(value) and key != "class"),
        paths={split: tuple(str(directory / place) for place in source.places(split)) for split in source.splits}
        if local
        else {},
    )


def _columns(config: dict[str, Any]) -> tuple[str, ...]:
    """Return the columns that the templates of a task name."""
    environment = jinja2.Environment()
    columns: dict[str, None] = {}
    for key in (*ASKING, "description", "gen_prefix"):
        template = config.get(key)
        if not isinstance(template, str):
            continue
        if not template.isidentifier():
            named = meta.find_undeclared_variables(environment.parse(template)) - environment.globals.keys()
            columns |= dict.fromkeys(sorted(named))
        elif key in ASKING:
            columns[template] = None
    return tuple(columns)


def _metrics(config: dict[str, Any]) -> tuple[str, ...]:
    listed = config.get("metric_list")
    if listed is None:
        return tuple(DEFAULT_METRIC_REGISTRY.get(config.get("output_type"), ()))
    return tuple(str(getattr(entry["metric"], "__name__", entry["metric"])) for entry in listed)

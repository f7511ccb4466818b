"""The options of the evaluator `harness`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from layerimp.component import Options


class HarnessConfig(Options):
    """The options of `harness`: the tasks, and how they are measured."""

    tasks: tuple[str, ...] = Field((), description="Names of tasks, groups or tags, or paths of task YAMLs.")
    task_path: Path | None = Field(None, description="A directory with more task YAMLs.")
    data_dir: Path | None = Field(
        None,
        description="A directory with the rows of tasks, which are then read in place of the hub, and with the "
        "relative data_files of task YAMLs.",
    )
    limit: int | None = Field(None, ge=1, description="Evaluate only this many documents per task, from the first on.")
    limits: dict[str, Annotated[int, Field(ge=1)]] = Field(
        default_factory=dict,
        description="Documents of a task, group or tag, in place of limit; those of a group are spread over its "
        "members.",
    )
    num_fewshot: int | None = Field(None, ge=0, description="Examples before each question; None: as the task says.")
    batch_size: int = Field(8, ge=1, description="The maximum sequences per forward; fewer if memory runs out.")
    max_length: int = Field(2048, ge=2, description="The maximum tokens per window; fewer if the model supports fewer.")
    seed: int = Field(0, ge=0, description="Seed of few-shot examples, sampling and bootstrap.")
    bootstrap: int = Field(1000, ge=2, description="Bootstrap draws, for standard errors without a closed form.")
    allow_task_code: bool = Field(False, description="Allow task YAMLs given by path to run Python.")
    fields: tuple[str, ...] = Field(
        (),
        max_length=2,
        description="The field, or the pair of fields, of a document that a classifier reads. Default: the task's.",
    )
    labels: dict[str, str] = Field(
        default_factory=dict,
        description="A classifier's label for each choice of a task whose name differs from the label.",
    )

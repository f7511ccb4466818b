"""What a run and a grid have in common: how models are scored, healed and evaluated."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from layerimp.component import Plain
from layerimp.defaults import BASELINES, BATCH_SIZE, BEST, EVALUATORS
from layerimp.recipe.calibration import CalibrationSpec
from layerimp.recipe.components import Baselines, Evaluators, Healers, Scorers, named

ModelName = Annotated[
    str, Field(description="Model directory, name of a model that a plugin ships, or model id on the hub.")
]
Dtype = Annotated[
    str | None,
    Field(
        description="Dtype to compute in: float32, bfloat16, float16 or float64; checkpoints keep the stored dtype, or "
        "get this one if it is narrower and the model is not offloaded. "
        "Default: the stored dtype; float32 for the starter, and where the CPU only emulates the stored dtype.",
    ),
]


class Experiment(Plain):
    """How models are scored, healed and evaluated. The defaults are those of a run."""

    schema_version: str
    """The version of this format."""
    scorers: Scorers = named(BEST)
    baselines: Baselines = named(*BASELINES)
    healers: Healers = named()
    heal_text: str | None = None
    """Further text for healers that train, such as distill, from any source of calibration text, or hub, a part of
    FineWeb-Edu; it is read as needed, without the documents that were drawn for calibration or kept for fidelity."""
    allow_overlap: bool = False
    """Let models be healed on documents that a task also measures them on."""
    calibration: CalibrationSpec = CalibrationSpec.model_validate({})
    """The text that drives scoring."""
    protect: tuple[int, ...] = ()
    """Blocks to keep regardless of scores."""
    tasks: tuple[str, ...] | None = None
    """lm-evaluation-harness tasks: names or YAML paths. Default: those of the starter."""
    evaluators: Evaluators = named(*EVALUATORS)
    task_path: Path | None = None
    """Directory with further task YAMLs."""
    data_dir: Path | None = None
    """Directory of rows that tasks read in place of the hub, and of relative data files."""
    limit: int | None = Field(None, ge=1)
    """Documents per task. Default: all."""
    limits: dict[str, Annotated[int, Field(ge=1)]] = Field({})
    """Documents of a task or group, in place of limit; those of a group are spread over its members."""
    num_fewshot: int | None = Field(None, ge=0)
    """Examples in each prompt. Default: the task's."""
    batch_size: int = Field(BATCH_SIZE, ge=1)
    """Rows per batch, in scoring and evaluation."""
    seed: int = Field(0, ge=0)
    """Seed of every draw: calibration text, few-shot examples and bootstraps."""

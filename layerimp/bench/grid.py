"""The description of a grid: plain data, checked, readable from YAML or JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from layerimp.defaults import GRID_BASELINES, HARNESS, PAPER_SCORERS, PRUNER, RATIO, STARTER
from layerimp.errors import OptionError
from layerimp.pruner import checked_ratio
from layerimp.recipe import (
    Baselines,
    CalibrationSpec,
    Components,
    ComponentSpec,
    Healers,
    Part,
    Recipe,
    Scorers,
    check_label,
)
from layerimp.steps import Cuts

RANDOM_DRAWS = 5
"""Scorers that look at nothing and have a seed are drawn at least so often: it costs no scoring."""


class ModelSpec(Part):
    """A model of the grid. What it leaves open is as the grid says."""

    model: str = Field(description="A model directory, one that a plugin ships, or a model id on the hub.")
    dtype: str | None = Field(
        None,
        description="What to compute in: float32, bfloat16, float16 or float64; default: as stored, but float32 where "
        "the CPU only emulates that, and for the starter.",
    )
    calibration: CalibrationSpec | None = Field(None, description="The text that drives its scoring.")
    tasks: tuple[str, ...] | None = Field(None, description="What it is evaluated on.")


def _by_label(value: Any) -> Any:
    """Accept a name, a list of names (the label is the last part of a path), and labels for names."""
    if isinstance(value, str):
        value = [value]
    if isinstance(value, list | tuple):
        labelled = {Path(item).name if isinstance(item, str) else repr(item): item for item in value}
        if len(labelled) < len(value):
            raise ValueError("two models have one label; use a mapping from labels")
        value = labelled
    if isinstance(value, dict):
        return {
            label: {"model": spec}
            if isinstance(spec, str)
            else {"model": label, **(spec or {})}
            if isinstance(spec, dict | None)
            else spec
            for label, spec in value.items()
        }
    return value


def _labels(value: dict[str, ModelSpec]) -> dict[str, ModelSpec]:
    if not value:
        raise ValueError("at least one is needed")
    for label in value:
        check_label(label)
    return value


def _several(value: Any) -> Any:
    """Accept a single one."""
    return (value,) if isinstance(value, int | float) else value


def _once(value: tuple[float, ...]) -> tuple[float, ...]:
    if len(set(value)) < len(value):
        raise ValueError("each is needed once")
    return value


def _ratios(value: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(checked_ratio(ratio, instead="counts: {}") for ratio in value)


def _default_ratios(others: dict[str, Any]) -> tuple[float, ...]:
    return () if others.get("counts") else (RATIO,)


class Grid(Part):
    """Models x scorers x pruners x ratios x healers x tasks, each repeated with calibration text of its own."""

    schema_version: Literal["layerimp.grid/1"] = Field("layerimp.grid/1", description="The version of this format.")
    models: Annotated[
        dict[str, ModelSpec],
        BeforeValidator(_by_label, json_schema_input_type=str | list[str] | dict[str, str | dict[str, Any] | None]),
        AfterValidator(_labels),
    ] = Field(
        default_factory=lambda: {STARTER: ModelSpec.model_validate({"model": STARTER})}, description="Models, by label."
    )
    scorers: Scorers = Field(
        default_factory=lambda: {name: ComponentSpec(name=name) for name in PAPER_SCORERS},
        description="Scorers, by label; `all` stands for every installed one that is not named beside it.",
    )
    baselines: Baselines = Field(
        default_factory=lambda: {name: ComponentSpec(name=name) for name in GRID_BASELINES},
        description="Scorers, by label, that keep the others company.",
    )
    cuts: Cuts = Field(
        "blocks",
        description="What may go: whole `blocks`, or `all`, which is blocks and the seams between them.",
    )
    pruners: Components = Field(
        default_factory=lambda: {PRUNER: ComponentSpec(name=PRUNER)}, description="Pruners, by label."
    )
    healers: Healers = Field(
        {}, description="Healers, by label; what each makes of every pruned model stands beside it as SCORER+HEALER."
    )
    heal_text: str | None = Field(
        None,
        description="Text beyond the calibration set, for healers that train; any calibration source.",
    )
    allow_overlap: bool = Field(
        False, description="Whether models may be healed on documents that a task measures them on."
    )
    counts: Annotated[
        tuple[Annotated[int, Field(ge=1)], ...],
        BeforeValidator(_several, json_schema_input_type=int | list[int]),
        AfterValidator(_once),
    ] = Field((), description="How many blocks to remove, one number or several, such as [1, 2].")
    ratios: Annotated[
        tuple[float, ...],
        BeforeValidator(_several, json_schema_input_type=float | list[float]),
        AfterValidator(_ratios),
        AfterValidator(_once),
    ] = Field(
        default_factory=_default_ratios,
        description="Shares of the blocks to remove, one or several, such as [0.25, 0.5], beside counts; "
        "default: none where counts are given.",
    )
    tasks: tuple[str, ...] | None = Field(
        None, description="lm-evaluation-harness tasks: names or YAML paths; default: those of the starter."
    )
    evaluators: Components = Field(
        default_factory=lambda: {HARNESS: ComponentSpec(name=HARNESS)},
        description="Evaluators of quality, by label.",
    )
    repeats: int = Field(5, ge=1, description="How often each scoring is done, each time with text of its own.")
    calibration: CalibrationSpec = Field(
        default_factory=lambda: CalibrationSpec.model_validate({}), description="The text that drives scoring."
    )
    protect: tuple[int, ...] = Field((), description="Blocks to keep whatever their score.")
    task_path: Path | None = Field(None, description="A directory with further task YAMLs.")
    data_dir: Path | None = Field(None, description="Where relative data files of local tasks are looked for first.")
    limit: int | None = Field(None, ge=1, description="Documents per task.")
    num_fewshot: int | None = Field(None, ge=0, description="Examples in each prompt.")
    batch_size: int = Field(8, ge=1, description="Rows per batch, in scoring and evaluation.")
    seed: int = Field(0, ge=0, description="Repeat number n draws with the seed plus n; all else takes the seed.")

    @model_validator(mode="after")
    def _some_amount(self) -> Grid:
        if not self.amounts:
            raise OptionError("nothing is to be removed: give ratios or counts")
        return self

    @property
    def amounts(self) -> tuple[int | float, ...]:
        """How much to remove each time: numbers of blocks (int), then shares (float), each from few to many."""
        return (*sorted(self.counts), *sorted(self.ratios))

    def recipe(self, label: str) -> Recipe:
        """What the grid asks of one model, as the recipe of a run."""
        spec = self.models[label]
        shared = {
            "healers",
            "heal_text",
            "allow_overlap",
            "cuts",
            "protect",
            "task_path",
            "data_dir",
            "limit",
            "num_fewshot",
            "batch_size",
            "seed",
            "evaluators",
        }
        return Recipe(
            model=spec.model,
            dtype=spec.dtype,
            calibration=spec.calibration or self.calibration,
            tasks=self.tasks if spec.tasks is None else spec.tasks,
            scorers=self.scorers,
            baselines=self.baselines,
            **{name: getattr(self, name) for name in shared},
        )

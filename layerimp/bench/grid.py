"""The description of a grid: validated plain data, readable from YAML or JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from layerimp._paths import last_name
from layerimp.defaults import DTYPE_NAMES, GRID_BASELINES, HARNESS, PAPER_SCORERS, PRUNER, RATIO, STARTER
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
from layerimp.recipe.components import nothing_required
from layerimp.steps import Cuts


class ModelSpec(Part):
    """A model of the grid. Fields that are not given have the grid's values."""

    model: str = Field(description="A model directory, one that a plugin ships, or a model id on the hub.")
    dtype: str | None = Field(
        None,
        description="The dtype to compute in: float32, bfloat16, float16 or float64; default: the stored dtype, but "
        "float32 for the starter and where the CPU only emulates the stored one.",
        examples=list(DTYPE_NAMES),
    )
    calibration: CalibrationSpec | None = Field(None, description="The text that drives scoring.")
    tasks: tuple[str, ...] | None = Field(None, description="The tasks to evaluate the model on.")


class LabelledModel(ModelSpec):
    """A model under a label; without a name the label is its name."""

    model_config = ConfigDict(json_schema_extra=nothing_required)


def _by_label(value: Any) -> Any:
    """Accept a name, a list of names (the label is the last part of a path), or a mapping from labels to names."""
    if isinstance(value, str):
        value = [value]
    if isinstance(value, list | tuple):
        labelled = {last_name(item) if isinstance(item, str) else repr(item): item for item in value}
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
    """Accept a single value."""
    return (value,) if isinstance(value, int | float) else value


def _once(value: tuple[float, ...]) -> tuple[float, ...]:
    if len(set(value)) < len(value):
        raise ValueError("each is needed once")
    return value


def _ratios(value: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(checked_ratio(ratio, instead="counts: {}") for ratio in value)


def _default_ratios(others: dict[str, Any]) -> tuple[float, ...]:
    return () if others.get("counts") else (RATIO,)


_Count = Annotated[int, Field(ge=1)]


class Grid(Part):
    """Models x scorers x pruners x ratios x healers x tasks, each repeated with calibration text of its own."""

    schema_version: Literal["layerimp.grid/1"] = Field("layerimp.grid/1", description="The version of this format.")
    models: Annotated[
        dict[str, ModelSpec],
        BeforeValidator(_by_label, json_schema_input_type=str | list[str] | dict[str, str | LabelledModel | None]),
        AfterValidator(_labels),
    ] = Field(
        default_factory=lambda: {STARTER: ModelSpec.model_validate({"model": STARTER})}, description="Models, by label."
    )
    scorers: Scorers = Field(
        default_factory=lambda: {name: ComponentSpec(name=name) for name in PAPER_SCORERS},
        description="Scorers, by label; `all` stands for every installed scorer that is not listed by name.",
    )
    baselines: Baselines = Field(
        default_factory=lambda: {name: ComponentSpec(name=name) for name in GRID_BASELINES},
        description="Baseline scorers, by label, to compare the others with.",
    )
    cuts: Cuts = Field(
        "blocks",
        description="What may go: whole `blocks`, or `all`, which is blocks and the seams between them.",
    )
    pruners: Components = Field(
        default_factory=lambda: {PRUNER: ComponentSpec(name=PRUNER)}, description="Pruners, by label."
    )
    healers: Healers = Field(
        {}, description="Healers, by label; each heals every pruned model, and the result is named SCORER+HEALER."
    )
    heal_text: str | None = Field(
        None,
        description="Further text for healers that train; any calibration source.",
    )
    allow_overlap: bool = Field(
        False, description="Whether models may be healed on documents that a task also measures them on."
    )
    counts: Annotated[
        tuple[_Count, ...],
        BeforeValidator(_several, json_schema_input_type=_Count | list[_Count]),
        AfterValidator(_once),
    ] = Field((), description="How many blocks to remove, one number or several, such as [1, 2].")
    ratios: Annotated[
        tuple[float, ...],
        BeforeValidator(_several, json_schema_input_type=float | list[float]),
        AfterValidator(_ratios),
        AfterValidator(_once),
    ] = Field(
        default_factory=_default_ratios,
        description="Shares of the blocks to remove (less of the parameters), one or several, such as [0.25, 0.5]; may "
        "be combined with counts. Default: none if counts are given.",
    )
    tasks: tuple[str, ...] | None = Field(
        None, description="lm-evaluation-harness tasks: names or YAML paths; default: those of the starter."
    )
    evaluators: Components = Field(
        default_factory=lambda: {HARNESS: ComponentSpec(name=HARNESS)},
        description="Evaluators of quality, by label.",
    )
    repeats: int = Field(5, ge=1, description="How often to repeat each scoring, each time with different text.")
    random_draws: int = Field(
        10,
        ge=1,
        description="How often, at least, to repeat a scorer that has a seed and looks at no model (`random`). "
        "Random choices differ more than those of other scorers, and scoring costs them nothing.",
    )
    calibration: CalibrationSpec = Field(
        default_factory=lambda: CalibrationSpec.model_validate({}), description="The text that drives scoring."
    )
    protect: tuple[int, ...] = Field((), description="Blocks to keep regardless of scores.")
    task_path: Path | None = Field(None, description="A directory with further task YAMLs.")
    data_dir: Path | None = Field(None, description="Where relative data files of local tasks are looked for first.")
    limit: int | None = Field(None, ge=1, description="Documents per task.")
    num_fewshot: int | None = Field(None, ge=0, description="Examples in each prompt.")
    batch_size: int = Field(8, ge=1, description="Rows per batch, in scoring and evaluation.")
    seed: int = Field(0, ge=0, description="The seed. Repeat number n draws text with the seed plus n.")

    @model_validator(mode="after")
    def _some_amount(self) -> Grid:
        if not self.amounts:
            raise OptionError("nothing is to be removed: give ratios or counts")
        return self

    @property
    def amounts(self) -> tuple[int | float, ...]:
        """The amounts to remove: numbers of blocks (int), then shares (float), each in ascending order."""
        return (*sorted(self.counts), *sorted(self.ratios))

    def recipe(self, label: str) -> Recipe:
        """Return the recipe of a run that does for one model what the grid asks for."""
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

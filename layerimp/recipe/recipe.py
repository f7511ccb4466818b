"""The recipe: the description of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from layerimp.defaults import BASELINES, DTYPE_NAMES, EVALUATORS, HEALING_ROWS, PRUNER, SCORER, STARTER
from layerimp.errors import OptionError
from layerimp.pruner import checked_ratio
from layerimp.recipe.calibration import CalibrationSpec
from layerimp.recipe.components import (
    Baselines,
    Components,
    ComponentSpec,
    Healers,
    NamedComponent,
    Scorers,
)
from layerimp.recipe.part import Part
from layerimp.recipe.shard_size import checked_size
from layerimp.sizes.targets import read_targets
from layerimp.steps import Cuts, Step, read_steps


def _steps(value: Any) -> Any:
    """Accept one step, a list of steps, or text as on the command line; pydantic validates anything else."""
    parts = [value] if isinstance(value, int | str) else value
    if not isinstance(parts, list | tuple):
        return value
    return read_steps(",".join(map(str, parts)), what="blocks") if parts else []


def _ratio(value: Any) -> Any:
    """Refuse a number that is not a valid ratio; pydantic validates anything else."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return checked_ratio(value, instead="count: {}") if number else value


def _targets(value: dict[str, Any]) -> dict[str, Any]:
    read_targets(value)
    return value


def checked_keep(keep: float, *, name: str = "keep") -> float:
    """Check the share of a model's quality that is to be kept.

    Args:
        keep: The share.
        name: The field or option that holds the share, for the error.

    Raises:
        OptionError: the share is not between 0 and 1.
    """
    if 0 < keep < 1:
        return keep
    raise OptionError(f"{name} {keep:g} is not between 0 and 1; it is a share such as 0.95")


def _keep(value: Any) -> Any:
    """Refuse a number that is not a valid share; pydantic validates anything else."""
    return checked_keep(value) if isinstance(value, int | float) else value


AMOUNTS = ("ratio", "count", "keep", "targets")
"""The fields that say how much to remove. A recipe gives at most one of them."""


class Recipe(Part):
    """A run: the model, how it is scored, how far it is pruned, and what it is evaluated on."""

    schema_version: Literal["layerimp.recipe/1"] = Field("layerimp.recipe/1", description="The version of this format.")
    model: str = Field(STARTER, description="A model directory, one that a plugin ships, or a model id on the hub.")
    dtype: str | None = Field(
        None,
        description="The dtype to compute in: float32, bfloat16, float16 or float64; default: the stored dtype, but "
        "float32 for the starter and where the CPU only emulates the stored one. Checkpoints keep the stored dtype.",
        examples=list(DTYPE_NAMES),
    )
    device: str | None = Field(
        None,
        description="cpu, cuda, cuda:1, ...; default: the first GPU, else the CPU.",
        examples=["cpu", "cuda"],
    )
    device_map: Literal["auto"] | None = Field(
        None, description="auto: spread the model over all GPUs, for a model too large for one; in place of device."
    )
    stream: bool | None = Field(
        None,
        description="Whether scoring reads the blocks from their files one after another, so that the model need not "
        "fit into memory; default: where it does not fit.",
    )
    scratch: Path | None = Field(
        None,
        description="A directory for the hidden states of a streamed model, which then take no memory while they wait; "
        "with it, the model is streamed.",
    )
    scorers: Scorers = Field(
        default_factory=lambda: {SCORER: ComponentSpec(name=SCORER)},
        description="Scorers, by label; `all` stands for every installed scorer that is not listed by name.",
    )
    baselines: Baselines = Field(
        default_factory=lambda: {name: ComponentSpec(name=name) for name in BASELINES},
        description="Baseline scorers, by label; a run that measures quality evaluates them beside the others.",
    )
    cuts: Cuts = Field(
        "blocks",
        description="What may go: whole `blocks`, or `all`, which is blocks and the seams between them.",
    )
    pruner: NamedComponent = Field(ComponentSpec(name=PRUNER), description="The pruner.")
    healers: Healers = Field(
        {}, description="Healers, by label; each heals every pruned model, and the result is named SCORER+HEALER."
    )
    heal_text: str | None = Field(
        None,
        description="Further text for healers that train, read as a stream: a JSONL or text file, a text that a plugin "
        "ships, a data set id on the hub, or `task:NAME`, the training split of a task. Documents that were drawn for "
        "calibration are left out.",
    )
    allow_overlap: bool = Field(
        False, description="Whether models may be healed on documents that a task also measures them on."
    )
    evaluators: Components = Field(
        default_factory=lambda: {name: ComponentSpec(name=name) for name in EVALUATORS},
        description="Evaluators, by label.",
    )
    calibration: CalibrationSpec = Field(
        CalibrationSpec.model_validate({}), description="The text that drives scoring."
    )
    ratio: Annotated[float | None, BeforeValidator(_ratio)] = Field(
        None,
        gt=0,
        lt=1,
        description="Share of the blocks to remove, which is less of the parameters; default: 0.25 if neither another "
        "amount nor blocks are given.",
    )
    count: int | None = Field(None, ge=1, description="How many blocks to remove, in place of ratio.")
    targets: Annotated[dict[str, str | int | float], AfterValidator(_targets)] = Field(
        {},
        description="Limits that the pruned models must not exceed, in place of ratio: parameters, bytes, kv-cache or "
        "latency, each as a size with a unit (200M, 6GB, 64KiB, 750ms) or as a factor of the intact model's, such as "
        "0.7. No more blocks are removed than necessary.",
    )
    keep: Annotated[float | None, BeforeValidator(_keep)] = Field(
        None,
        gt=0,
        lt=1,
        description="Share of the model's quality that must be retained, in place of ratio: a run then removes as "
        "many blocks as that allows.",
    )
    blocks: Annotated[tuple[Step, ...], BeforeValidator(_steps, json_schema_input_type=Step | list[Step])] = Field(
        (),
        description="What to remove regardless of scores: blocks, and seams between neighbours such as 17/18; a list, "
        "or text such as 5,17/18.",
    )
    protect: tuple[int, ...] = Field((), description="Blocks to keep regardless of scores.")
    tasks: tuple[str, ...] | None = Field(
        None, description="lm-evaluation-harness tasks: names or YAML paths; default: those of the starter."
    )
    task_path: Path | None = Field(None, description="A directory with further task YAMLs.")
    data_dir: Path | None = Field(None, description="Where relative data files of local tasks are looked for first.")
    limit: int | None = Field(None, ge=1, description="Documents per task.")
    num_fewshot: int | None = Field(None, ge=0, description="Examples in each prompt.")
    batch_size: int = Field(8, ge=1, description="Rows per batch, in scoring and evaluation.")
    seed: int = Field(0, ge=0, description="For the calibration draw, few-shot examples and bootstraps.")
    output: Path | None = Field(None, description="The directory for results and checkpoints.")
    overwrite: bool = Field(False, description="Whether an output that layerimp made may be replaced.")
    max_shard_size: Annotated[str, AfterValidator(checked_size)] | None = Field(
        None,
        description="Largest size of one file of a checkpoint's weights, such as 5GB; default: as in Transformers, or "
        "5GB for a model spread over several devices.",
    )
    verify: bool = Field(True, description="Whether checkpoints are loaded back and compared.")

    @model_validator(mode="after")
    def _one_place(self) -> Recipe:
        if self.device is not None and self.device_map is not None:
            raise OptionError("device and device_map contradict each other; give one of them")
        return self

    @model_validator(mode="after")
    def _one_amount(self) -> Recipe:
        given = [name for name in AMOUNTS if getattr(self, name) not in (None, {})]
        if len(given) > 1:
            raise OptionError(f"{given[0]} and {given[1]} contradict each other; give one of them")
        return self

    @model_validator(mode="after")
    def _enough_text(self) -> Recipe:
        if self.healers and self.calibration.samples < HEALING_ROWS:
            raise OptionError(
                f"healing needs at least {HEALING_ROWS} rows of text, and only {self.calibration.samples} would be "
                "drawn (samples)"
            )
        return self

    @property
    def names_amount(self) -> bool:
        """Whether the recipe says how much to remove: as a share, a number, a size or a quality."""
        return any(getattr(self, name) not in (None, {}) for name in AMOUNTS)

    @property
    def names_all(self) -> bool:
        """Whether only the named blocks are to be removed, so that no block is chosen by its score."""
        return bool(self.blocks) and not self.names_amount

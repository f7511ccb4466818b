"""The description of a run: plain data, checked, readable from YAML or JSON."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from layerimp.component import Plain
from layerimp.defaults import (
    ALL,
    BASELINES,
    EVALUATORS,
    ORIGINAL,
    PRUNER,
    SCORER,
    STARTER,
)
from layerimp.errors import InputError, OptionError, unknown_name
from layerimp.pruner import checked_ratio
from layerimp.sizes.targets import read_targets
from layerimp.steps import Cuts, Step, read_steps


@dataclass(frozen=True)
class Permissions:
    """What may run code that came with data. Given on the command line or in Python, never by a recipe file.

    Attributes:
        trust_remote_code: Python that comes with a model.
        allow_task_code: Python that an evaluation task given by path names (`!function`).
    """

    trust_remote_code: bool = False
    allow_task_code: bool = False


def check_label(label: str) -> None:
    """Refuse a label that would be no plain directory name, or that the intact model has.

    Raises:
        OptionError: it is one.
    """
    if label == ORIGINAL or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", label):
        raise OptionError(f"{label!r} cannot be a label; use letters, digits, '-', '_' and '.'")


def checked_size(size: str) -> str:
    """The size of a file, such as 5GB, as Transformers takes it.

    Raises:
        OptionError: it is none.
    """
    if not re.fullmatch(r"\d+(\.\d+)?\s?[KMGT]B", size):
        raise OptionError(f"max_shard_size {size!r} is no size; give one such as 5GB or 500MB")
    return size.replace(" ", "")


class Part(Plain):
    """A part of a recipe."""


class ComponentSpec(Part):
    """A scorer, pruner or evaluator by name, with its options."""

    name: str = Field(description="The registered name.")
    options: dict[str, Any] = Field(default_factory=dict, description="Its options.")

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


def _by_label(value: Any) -> Any:
    """Accept a list of names, and labels without a name of their own."""
    if isinstance(value, list | tuple):
        if not all(isinstance(item, str) for item in value) or len(set(value)) < len(value):
            raise ValueError("a list holds different names; use a mapping from labels for more")
        return {item: {"name": item} for item in value}
    if isinstance(value, dict):
        return {
            label: {"name": label, **(spec or {})} if isinstance(spec, dict | None) else spec
            for label, spec in value.items()
        }
    return value


def _any(value: dict[str, ComponentSpec]) -> dict[str, ComponentSpec]:
    if not value:
        raise ValueError("at least one is needed")
    return value


def _labels(value: dict[str, ComponentSpec]) -> dict[str, ComponentSpec]:
    for label in value:
        check_label(label)
    return value


def _scorer_labels(value: dict[str, ComponentSpec]) -> dict[str, ComponentSpec]:
    for label, spec in _labels(value).items():
        if ALL in (label, spec.name) and (label != spec.name or spec.options):
            raise OptionError(f"{ALL!r} stands for every scorer, and takes no label and no options")
    return value


def _not_all(value: dict[str, ComponentSpec]) -> dict[str, ComponentSpec]:
    if ALL in value:
        raise OptionError(f"{ALL!r} cannot be a baseline")
    return value


Components = Annotated[
    dict[str, ComponentSpec],
    BeforeValidator(_by_label, json_schema_input_type=list[str] | dict[str, str | dict[str, Any] | None]),
]
"""Components by label."""
Scorers = Annotated[Components, AfterValidator(_scorer_labels), AfterValidator(_any)]
Healers = Annotated[Components, AfterValidator(_labels)]
Baselines = Annotated[Components, AfterValidator(_scorer_labels), AfterValidator(_not_all)]


class CalibrationSpec(Part):
    """Where the calibration text comes from, and how much of it is drawn."""

    source: str | None = Field(
        None,
        description="A JSONL or text file, a text that a plugin ships, a data set id on the hub "
        "(NAME[:CONFIG[:SPLIT]]), or task:NAME for the training split of a task; default: the starter's own text "
        "for the starter, else prose.",
    )
    field: str = Field("text", description="The JSON field that holds the text.")
    packing: Literal["windows", "rows"] | None = Field(
        None,
        description="windows: documents joined and cut into full rows; rows: one document a row. Default: rows for a "
        "classifier on a task's training split, else windows.",
    )
    label_field: str | None = Field(
        None, description="The JSON field that holds a classifier's label, as a number or by name; needs rows."
    )
    samples: int = Field(64, ge=1, description="Rows to draw.")
    max_length: int | None = Field(None, ge=2, description="Tokens per row; default 256, or what the model takes.")


def _steps(value: Any) -> Any:
    """Accept one step, a list of them, and text as on the command line; all else is for pydantic to judge."""
    parts = [value] if isinstance(value, int | str) else value
    if not isinstance(parts, list | tuple):
        return value
    return read_steps(",".join(map(str, parts)), what="blocks") if parts else []


def _ratio(value: Any) -> Any:
    """Refuse a number that is no share; all else is for pydantic to judge."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return checked_ratio(value, instead="count: {}") if number else value


def _targets(value: dict[str, Any]) -> dict[str, Any]:
    read_targets(value)
    return value


def checked_keep(keep: float, *, name: str = "keep") -> float:
    """A share of what a model knows.

    Args:
        keep: The share.
        name: What holds the share where it was given.

    Raises:
        OptionError: it is not between 0 and 1.
    """
    if 0 < keep < 1:
        return keep
    raise OptionError(f"{name} {keep:g} is not between 0 and 1; it is a share such as 0.95")


def _keep(value: Any) -> Any:
    """Refuse a number that is no share; all else is for pydantic to judge."""
    return checked_keep(value) if isinstance(value, int | float) else value


class Recipe(Part):
    """A run: which model, scored how, pruned how far, evaluated on what."""

    schema_version: Literal["layerimp.recipe/1"] = Field("layerimp.recipe/1", description="The version of this format.")
    model: str = Field(STARTER, description="A model directory, one that a plugin ships, or a model id on the hub.")
    dtype: str | None = Field(
        None,
        description="What to compute in: float32, bfloat16, float16 or float64; default: as stored, but float32 where "
        "the CPU only emulates that, and for the starter. Checkpoints are written as stored.",
    )
    device: str | None = Field(None, description="cpu, cuda, cuda:1, ...; default: the first GPU, else the CPU.")
    device_map: Literal["auto"] | None = Field(
        None, description="auto: spread the model over all GPUs, where one is too small; in place of device."
    )
    scorers: Scorers = Field(
        default_factory=lambda: {SCORER: ComponentSpec(name=SCORER)},
        description="Scorers, by label; `all` stands for every installed one that is not named beside it.",
    )
    baselines: Baselines = Field(
        default_factory=lambda: {name: ComponentSpec(name=name) for name in BASELINES},
        description="Scorers, by label, that a run with quality metrics evaluates beside the others.",
    )
    cuts: Cuts = Field(
        "blocks",
        description="What may go: whole `blocks`, or `all`, which is blocks and the seams between them.",
    )
    pruner: ComponentSpec = Field(ComponentSpec(name=PRUNER), description="The pruner.")
    healers: Healers = Field(
        {}, description="Healers, by label; what each makes of every pruned model stands beside it as SCORER+HEALER."
    )
    heal_text: str | None = Field(
        None,
        description="Further text for healers that train, streamed: a JSONL or text file, a text that a plugin ships, "
        "or a data set id on the hub. Documents that were drawn for calibration are left out.",
    )
    allow_overlap: bool = Field(
        False, description="Whether models may be healed on documents that a task measures them on."
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
        description="Share of the blocks to remove; default: 0.25 where no other amount and no blocks are given.",
    )
    count: int | None = Field(None, ge=1, description="How many blocks to remove, in place of ratio.")
    targets: Annotated[dict[str, str | int | float], AfterValidator(_targets)] = Field(
        {},
        description="What the pruned models must not exceed, in place of ratio: parameters, bytes, kv-cache or "
        "latency, each as a size with a unit (200M, 6GB, 64KiB, 750ms) or as a factor of the intact model's, such as "
        "0.7. As few blocks go as that takes.",
    )
    keep: Annotated[float | None, BeforeValidator(_keep)] = Field(
        None,
        gt=0,
        lt=1,
        description="Share of what the model knows that has to be retained, in place of ratio: a run then removes as "
        "many blocks as that allows.",
    )
    blocks: Annotated[tuple[Step, ...], BeforeValidator(_steps, json_schema_input_type=Step | list[Step])] = Field(
        (),
        description="What to remove whatever its score: blocks, and seams between neighbours such as 17/18; a list, or "
        "text such as 5,17/18.",
    )
    protect: tuple[int, ...] = Field((), description="Blocks to keep whatever their score.")
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
        description="How large a file of a checkpoint's weights gets, such as 5GB; default: as Transformers does, and "
        "5GB for a model that lies on several devices.",
    )
    verify: bool = Field(True, description="Whether checkpoints are loaded back and compared.")

    @model_validator(mode="after")
    def _one_place(self) -> Recipe:
        if self.device is not None and self.device_map is not None:
            raise OptionError("device and device_map contradict each other; give one of them")
        return self

    @model_validator(mode="after")
    def _one_amount(self) -> Recipe:
        given = [name for name in ("ratio", "count", "keep", "targets") if getattr(self, name) not in (None, {})]
        if len(given) > 1:
            raise OptionError(f"{given[0]} and {given[1]} contradict each other; give one of them")
        return self

    @property
    def amount(self) -> int | float | None:
        """How much to remove: a number of blocks (int), a share of them (float), or None where neither is given."""
        return self.count if self.ratio is None else self.ratio

    @property
    def names_all(self) -> bool:
        """Whether the blocks that are named are all that is to go, so that none is chosen by its score."""
        return bool(self.blocks) and self.amount is None and not self.targets


PERMISSIONS = frozenset(Permissions.__dataclass_fields__)


Described = TypeVar("Described", bound=Part)


def make_recipe(values: dict[str, Any]) -> Recipe:
    """A recipe from plain values; see `made`."""
    return made(Recipe, values)


def made(kind: type[Described], values: dict[str, Any]) -> Described:
    """A description from plain values.

    Raises:
        OptionError: a value is missing or wrong; names the first one.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "missing":
            raise OptionError(f"{where} is missing from the recipe") from None
        if problem["type"] == "extra_forbidden":
            raise unknown_name("recipe field", where, _siblings(kind, problem["loc"])) from None
        message = problem["msg"].removeprefix("Value error, ")
        raise OptionError(f"{where}: {message}, got {problem['input']!r}") from None


def _siblings(owner: type[Part], location: tuple[int | str, ...]) -> list[str]:
    """The fields that exist where an unknown one was given, each with its whole path."""
    for part in location[:-1]:
        if field := owner.model_fields.get(str(part)):
            owner = _part_in(field.annotation) or owner
    return [".".join([*map(str, location[:-1]), name]) for name in owner.model_fields]


def _part_in(annotation: Any) -> type[Part] | None:
    """The description that a field holds, by itself or by label."""
    if isinstance(annotation, type) and issubclass(annotation, Part):
        return annotation
    return next(filter(None, map(_part_in, get_args(annotation))), None)


class _Loader(yaml.SafeLoader):
    """Refuses a mapping that has a key twice, of which YAML would keep the last value without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping as Python has it."""
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := next((key for key in keys if keys.count(key) > 1), None):
            raise yaml.constructor.ConstructorError(problem=f"{twice!r} is there twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


def read_yaml(text: str) -> Any:
    """The value of a text in YAML.

    Raises:
        yaml.YAMLError: it is not YAML, or has a key twice.
    """
    return yaml.load(text, _Loader)


def read_recipe(path: Path) -> dict[str, Any]:
    """The values of a recipe file in YAML or JSON.

    Raises:
        InputError: it cannot be read, is no mapping, or asks for what only the command line may allow.
    """
    try:
        values = read_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the recipe {path}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"the recipe {path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise InputError(f"the recipe {path} is not a mapping of fields")
    refuse_permissions(values, f"the recipe {path}")
    if values.get("overwrite"):
        raise InputError(f"the recipe {path} cannot say overwrite; give the flag --overwrite instead")
    return values


def refuse_permissions(values: Any, where: str) -> None:
    """Refuse values that, at any depth, switch on what may run code.

    Raises:
        InputError: they do.
    """
    pending, seen = [values], set()
    while pending:
        value = pending.pop()
        if id(value) in seen:  # a YAML anchor may refer to itself
            raise InputError(f"{where} refers to itself")
        if isinstance(value, dict):
            for key in value:
                if key in PERMISSIONS:
                    raise InputError(f"{where} cannot switch on {key}; give the flag --{key.replace('_', '-')} instead")
            pending += value.values()
            seen.add(id(value))
        elif isinstance(value, list | tuple):
            pending += value
            seen.add(id(value))

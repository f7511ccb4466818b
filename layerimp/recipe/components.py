"""Scorers, pruners, healers and evaluators as a recipe names them: by label, with options."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from layerimp.defaults import ALL, ORIGINAL
from layerimp.errors import OptionError
from layerimp.recipe.part import Part


def check_label(label: str) -> None:
    """Refuse a label that is not a plain directory name, or that is reserved for the intact model.

    Raises:
        OptionError: the label is not a plain directory name, or it is reserved.
    """
    if label == ORIGINAL or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", label):
        raise OptionError(f"{label!r} cannot be a label; use letters, digits, '-', '_' and '.'")


class ComponentSpec(Part):
    """A scorer, pruner, healer or evaluator by name, with its options."""

    name: str = Field(description="The registered name.")
    options: dict[str, Any] = Field(default_factory=dict, description="The component's options.")

    @model_validator(mode="before")
    @classmethod
    def _options_have_a_field(cls, values: Any) -> Any:
        given = values if isinstance(values, dict) else {}
        beside = {key: value for key, value in given.items() if key not in cls.model_fields}
        if beside and not any(get_close_matches(str(key), cls.model_fields) for key in beside):  # not a field misspelt
            how = f"options are written {{'options': {beside}}}"
            raise OptionError(f"{given.get('name')!r} has the fields name and options; {how}")
        return values


def nothing_required(schema: dict[str, Any]) -> None:
    """In the JSON Schema of an entry under a label: all may be left out, since the label stands for the name."""
    del schema["required"]


class LabelledComponent(ComponentSpec):
    """A scorer, pruner, healer or evaluator under a label, with its options; without a name the label is its name."""

    model_config = ConfigDict(json_schema_extra=nothing_required)


def _bare_name(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


NamedComponent = Annotated[ComponentSpec, BeforeValidator(_bare_name, json_schema_input_type=str | ComponentSpec)]
"""A component that may be given by its name alone."""


def _by_label(value: Any) -> Any:
    """Accept a list of names, and labels that serve as names."""
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
    dict[str, NamedComponent],
    BeforeValidator(_by_label, json_schema_input_type=list[str] | dict[str, str | LabelledComponent | None]),
]
"""Components by label."""
Scorers = Annotated[
    Components,
    AfterValidator(_scorer_labels),
    AfterValidator(_any),
    Field(description="Scorers, by label; `all` stands for every installed scorer that is not listed by name."),
]
Baselines = Annotated[
    Components,
    AfterValidator(_scorer_labels),
    AfterValidator(_not_all),
    Field(description="Baseline scorers, by label; where quality is measured, the others are compared with them."),
]
Healers = Annotated[
    Components,
    AfterValidator(_labels),
    Field(description="Healers, by label; each heals every pruned model, and the result is named SCORER+HEALER."),
]
Evaluators = Annotated[Components, Field(description="Evaluators, by label; a grid takes only those of quality.")]


def named(*names: str) -> dict[str, ComponentSpec]:
    """Return the components of these names, without options, each under its own name."""
    return {name: ComponentSpec(name=name) for name in names}

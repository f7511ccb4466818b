"""Scorers, pruners, healers and evaluators as a recipe names them: by label, with options."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from layerimp.component import Plain
from layerimp.defaults import ALL, FIDELITY
from layerimp.errors import OptionError
from layerimp.recipe.labels import by_label, check_any, check_labels


class ComponentSpec(Plain):
    """A scorer, pruner, healer or evaluator by name, with its options."""

    name: str
    """The registered name."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The component's options."""

    @model_validator(mode="before")
    @classmethod
    def _options_have_a_field(cls, values: Any) -> Any:
        given = values if isinstance(values, dict) else {}
        beside = {key: value for key, value in given.items() if key not in cls.model_fields}
        if beside and not any(get_close_matches(str(key), cls.model_fields) for key in beside):  # not a field misspelt
            how = f"options are written {{'options': {beside}}}"
            raise OptionError(f"{given.get('name')!r} has the fields name and options; {how}")
        return values


def _bare_name(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


NamedComponent = Annotated[ComponentSpec, BeforeValidator(_bare_name)]
"""A component that may be given by its name alone."""


def _scorer_labels(value: dict[str, ComponentSpec]) -> dict[str, ComponentSpec]:
    for label, spec in check_labels(value).items():
        if ALL in (label, spec.name) and (label != spec.name or spec.options):
            raise OptionError(f"{ALL!r} stands for every scorer, and takes no label and no options")
    return value


def _not_all(value: dict[str, ComponentSpec]) -> dict[str, ComponentSpec]:
    if ALL in value:
        raise OptionError(f"{ALL!r} cannot be a baseline")
    return value


Components = Annotated[dict[str, NamedComponent], BeforeValidator(by_label("name"))]
"""Components by label."""
Scorers = Annotated[
    Components,
    AfterValidator(_scorer_labels),
    AfterValidator(check_any),
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
    AfterValidator(check_labels),
    Field(description="Healers, by label; each heals every pruned model, and the result is named SCORER+HEALER."),
]
Evaluators = Annotated[Components, Field(description="Evaluators, by label; a grid takes none of costs.")]


COMPARED_BRIEFLY = ComponentSpec(name=FIDELITY, options={"brief": True})
"""How a run and a grid that name no evaluators compare models with the intact one."""


def named(*names: str) -> dict[str, ComponentSpec]:
    """Return the components of these names, without options, each under its own name."""
    return {name: ComponentSpec(name=name) for name in names}

"""The common base of scorers, pruners, healers and evaluators: a name and validated options."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, field_validator

if TYPE_CHECKING:
    from pydantic_core import CoreSchema


class Described(BaseModel):
    """Base of frozen values, which refuse unknown fields, and whose fields docstrings describe."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        for field in cls.__pydantic_fields__.values():
            if field.description is not None:
                field.description = " ".join(field.description.split())  # a docstring may have several lines
        return handler(source)


class Plain(Described):
    """Base of plain values that are read as JSON or YAML; booleans are not numbers."""

    @field_validator("*", mode="wrap")
    @classmethod
    def _true_is_no_number(cls, value: Any, read: Callable[[Any], Any]) -> Any:
        result = read(value)
        if (wrong := _taken_for_a_number(value, result)) is not None:
            raise ValueError(f"a number is needed, and {str(wrong).lower()} is none")
        return result


def versioned(version: str) -> Any:
    """Return the field of a document that holds the version of its format."""
    return Field(default=version, description="The version of this format.")


def _taken_for_a_number(given: Any, read: Any) -> bool | None:
    """Return a boolean in the given value that was read as a number; None if there is none."""
    if isinstance(given, bool):
        return given if isinstance(read, int | float) and not isinstance(read, bool) else None
    pairs: Iterable[tuple[Any, Any]] = ()
    if isinstance(given, Mapping) and isinstance(read, Mapping):
        pairs = ((given[key], read[key]) for key in given.keys() & read.keys())
    elif isinstance(given, list | tuple) and isinstance(read, list | tuple) and len(given) == len(read):
        pairs = zip(given, read, strict=True)
    return next((wrong for pair in pairs if (wrong := _taken_for_a_number(*pair)) is not None), None)


class Options(Plain):
    """Base of every component's `Config`: unknown options are refused, and values are finite and never change."""

    model_config = ConfigDict(allow_inf_nan=False)


class Component(ABC):
    """A named, configurable part that a plugin ships.

    Attributes:
        name: The name that users type.
        Config: The options, each with a type, a default and a description.
        reference: The source of the method: paper and equation.
        variants: Further names that users can type, each with the options that it presets, such as
            `{"avss-delta": {"site": "block_delta"}}`. Options that the user gives win.
        config: This instance's options.
        parts: Other components that this instance has made and works with. If their code changes, so may its results.
    """

    name: ClassVar[str]
    Config: ClassVar[type[Options]] = Options
    reference: ClassVar[str] = ""
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    parts: tuple[Component, ...] = ()

    def __init__(self, config: Any = None) -> None:
        self.config: Any = self.Config() if config is None else config

    @classmethod
    def fault(cls) -> str | None:
        """Describe what is wrong with the class itself, before it is used; None if nothing is."""
        if missing := sorted(getattr(cls, "__abstractmethods__", ())):
            return f"{cls.__name__} lacks {', '.join(missing)}"
        name = getattr(cls, "name", None)
        return None if isinstance(name, str) and name else f"{cls.__name__} has no name"

    @classmethod
    def summary(cls) -> str:
        """The first line of the docstring."""
        return (cls.__doc__ or "").strip().split("\n")[0]

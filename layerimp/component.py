"""What scorers, pruners, healers and evaluators have in common: a name and validated options."""

from __future__ import annotations

from abc import ABC
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict


class Options(BaseModel):
    """Base of every component's `Config`: unknown options are refused, and values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Component(ABC):
    """A named, configurable part that a plugin ships.

    Attributes:
        name: What users type.
        Config: The options, each with a type, a default and a description.
        reference: Where the method comes from: paper and equation.
        config: This instance's options.
    """

    name: ClassVar[str]
    Config: ClassVar[type[Options]] = Options
    reference: ClassVar[str] = ""

    def __init__(self, config: Any = None) -> None:
        self.config: Any = self.Config() if config is None else config

    @classmethod
    def fault(cls) -> str | None:
        """What is wrong with the class as it is written, before it is used; None where nothing is."""
        if missing := sorted(getattr(cls, "__abstractmethods__", ())):
            return f"{cls.__name__} lacks {', '.join(missing)}"
        name = getattr(cls, "name", None)
        return None if isinstance(name, str) and name else f"{cls.__name__} has no name"

    @classmethod
    def summary(cls) -> str:
        """The first line of the docstring."""
        return (cls.__doc__ or "").strip().split("\n")[0]

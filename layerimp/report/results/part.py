"""The base of all parts of a document, and numbers that JSON can hold."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, PlainSerializer

from layerimp.component import Described


class Part(Described):
    """Base of the parts of a document: frozen, without unknown keys, and with fields that docstrings describe."""


class Versioned(Part):
    """Last base of a whole document, so that its version is the first of its fields."""

    schema_version: str


Infinite = Literal["Infinity", "-Infinity"]
"""A number that JSON does not have."""


def _or_null(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _in_json(value: float) -> float | Infinite | None:
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return _or_null(value)


def _or_nan(value: Any) -> Any:
    return math.nan if value is None else value


Number = Annotated[
    float,
    BeforeValidator(_or_nan),
    PlainSerializer(_in_json, return_type=float | Infinite | None, when_used="json"),
]
"""A number; in JSON a text if it is infinite, and null if it is NaN."""
Known = Annotated[float | None, PlainSerializer(_or_null, return_type=float | None, when_used="json")]
"""A number, or None if it is not known; in JSON null also if it is not finite."""

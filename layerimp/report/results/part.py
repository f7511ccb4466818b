"""The base of all parts of a document, and numbers that JSON can hold."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

from layerimp.component import Described


class Part(Described):
    """Base of the parts of a document: frozen, without unknown keys, and with fields that docstrings describe."""


class Versioned(Part):
    """Last base of a whole document, so that its version is the first of its fields."""

    schema_version: str


def _or_null(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _or_nan(value: Any) -> Any:
    return math.nan if value is None else value


_as_json = PlainSerializer(_or_null, return_type=float | None, when_used="json")
Number = Annotated[float, BeforeValidator(_or_nan, json_schema_input_type=float | None), _as_json]
"""A number; in JSON null if it is not finite, which is read back as NaN."""
Known = Annotated[float | None, _as_json]
"""A number, or None if it is not known; in JSON null also if it is not finite."""

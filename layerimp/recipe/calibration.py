"""The calibration text of a recipe: its source, the number of rows, and their length."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from layerimp.component import Plain
from layerimp.defaults import LENGTH, ROWS


class CalibrationSpec(Plain):
    """Where the calibration text comes from, and how much of it is drawn."""

    source: str | None = Field(None, min_length=1)
    """JSONL or text file, a text that a plugin ships, data set id on the hub (NAME[:CONFIG[:SPLIT]]), or task:NAME for
    the training split of a task. Default: the starter's own text for the starter, else prose."""
    field: str = "text"
    """JSON field that holds the text."""
    packing: Literal["windows", "rows"] | None = None
    """windows: documents joined and cut into full rows; rows: one document per row. Default: rows for the text of the
    starter, and for a classifier on a task's training split, else windows."""
    label_field: str | None = None
    """JSON field that holds a classifier's label, as a number or by name; needs the packing rows."""
    samples: int = Field(ROWS, ge=1)
    """Rows of calibration text to draw."""
    max_length: int | None = Field(
        None, ge=2, description=f"Tokens per row. Default: {LENGTH}, or the model's limit if that is lower."
    )

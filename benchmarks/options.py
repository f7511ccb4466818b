"""Options that several benchmarks share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from layerimp.cli.requests import read_limits

Model = Annotated[str, typer.Option(help="Model directory, hub id or shipped name.")]
Calibration = Annotated[str, typer.Option(help="Calibration text.")]
Samples = Annotated[int, typer.Option(help="Rows of calibration text.")]
Rows = Annotated[int, typer.Option(help="Rows to measure on, of each file.")]
MaxLength = Annotated[int, typer.Option(help="Tokens of a row.")]
Packing = Annotated[Literal["windows", "rows"], typer.Option(help="As in layerimp run.")]
Field = Annotated[str, typer.Option(help="JSON field that holds the text.")]
LabelField = Annotated[str | None, typer.Option(help="JSON field that holds a classifier's label.")]
Dtype = Annotated[str, typer.Option(help="The dtype of the models.")]
Results = Annotated[Path | None, typer.Option(help="The file for finished work, as JSON lines.")]

Limit = Annotated[list[str] | None, typer.Option(help="As in layerimp run.")]


def limits(texts: list[str] | None) -> dict[str, Any]:
    """Return the fields of a recipe for limits such as `300` and `blimp=1340`."""
    return {name: value for name, value in read_limits(texts or ()).items() if value is not None}

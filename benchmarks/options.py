"""Options that several benchmarks share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from layerimp.cli.requests import read_limits

Model = Annotated[str, typer.Option(help="Model directory, hub id or shipped name.")]
Calibration = Annotated[str, typer.Option(help="Calibration text.")]
Samples = Annotated[int, typer.Option(help="Rows of calibration text.")]
Rows = Annotated[int, typer.Option(help="Rows to measure on, of each file.")]
MaxLength = Annotated[int, typer.Option(help="Tokens of a row.")]
Dtype = Annotated[str, typer.Option(help="The dtype of the models.")]
Results = Annotated[Path | None, typer.Option(help="The file for finished work, as JSON lines.")]

Limit = Annotated[list[str] | None, typer.Option(help="As in layerimp run.")]


def limits(texts: list[str] | None) -> dict[str, Any]:
    """Return the fields of a recipe for limits such as `300` and `blimp=1340`."""
    return {name: value for name, value in read_limits(texts or ()).items() if value is not None}

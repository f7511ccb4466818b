"""The document of `layerimp heal`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from layerimp.calibration.sampling import Calibration
from layerimp.component import versioned
from layerimp.fidelity.record import Fidelity
from layerimp.report.results.models import Repaired
from layerimp.report.results.part import Versioned


class HealingReport(Repaired, Versioned):
    """The document that `layerimp heal` prints with `--json`."""

    schema_version: Literal["layerimp.healing/1"] = versioned("layerimp.healing/1")
    model: str
    """The pruned model, as it was named."""
    teacher: str
    """The intact model."""
    removed: list[int]
    """The blocks removed from the intact model."""
    healer: str
    """The healer."""
    options: dict[str, Any]
    """The healer's options."""
    calibration: Calibration
    """The text that drove healing."""
    changed: list[str]
    """The parameters that were replaced."""
    fidelity: dict[str, Fidelity] = Field(default={})
    """How far the `pruned` and the `healed` model are from the intact one; empty if that is not known."""
    output: str
    """The healed checkpoint."""

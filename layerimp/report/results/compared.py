"""The document of `layerimp compare`: models of any origin beside an intact one."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from layerimp.calibration.sampling import Calibration
from layerimp.component import versioned
from layerimp.fidelity import Fidelity
from layerimp.report.results.measures import Difference, Measured, Retained
from layerimp.report.results.models import Size
from layerimp.report.results.part import Part, Versioned


class MeasuredModel(Part):
    """A model, and what was measured of it alone."""

    model: str
    """The model, as it was named."""
    size: Size
    """Its size; of quantised weights, the numbers that are stored. The bytes are those in its files."""
    dtype: str
    """The dtype that it computes in."""
    metrics: dict[str, dict[str, Measured]]
    """The metrics by task and name; of all models but the intact one with their flips."""


class ComparedModel(MeasuredModel):
    """A model that is compared with the intact one."""

    differences: dict[str, dict[str, Difference]]
    """By task and name, how much greater a metric is than the intact model's, document by document."""
    retained: Retained | None
    """What is retained of the tasks; null without tasks."""


class ModelComparison(Versioned):
    """The document that `layerimp compare` prints with `--json`, and the content of its `comparison.json`."""

    schema_version: Literal["layerimp.comparison/1"] = versioned("layerimp.comparison/1")
    request: dict[str, Any]
    """What was asked for, with the fields of a recipe, and the `models`."""
    text: Calibration
    """The text that fidelity is measured on."""
    intact: MeasuredModel
    """The intact model."""
    models: dict[str, ComparedModel]
    """The other models, by label."""
    counting: dict[str, str] = Field(default={})
    """By task, the metric by which it counts in what is retained; without the members of groups."""
    factors: list[tuple[str, str]] = Field(default=[])
    """The tasks and metrics whose differences are logarithms of factors, as of a perplexity."""
    fidelity: dict[str, Fidelity]
    """How far each of them is from the intact model, by label."""
    failures: dict[str, str]
    """By label, why an evaluator failed."""
    notes: list[str]
    """Notes for a reader of the numbers."""
    versions: list[str]
    """The libraries that computed the results."""
    output: str | None
    """The output directory; null without one."""

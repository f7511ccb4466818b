"""The document of `layerimp shrink`: before and after, what is retained, what was done, and what it cost."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from layerimp.calibration.sampling import Calibration
from layerimp.component import versioned
from layerimp.fidelity.record import Fidelity, Sample
from layerimp.pruner import PrunePlan
from layerimp.report.results.measures import Measured, Retained, Share
from layerimp.report.results.models import ReachedTarget, Repaired, Size, Target, TrainingText
from layerimp.report.results.part import Number, Part, Versioned

Verdict = Literal["good", "poor", "not measured"]
"""Whether the smaller model is within the limits of `layerimp.defaults.POOR`."""


class BothSpeeds(Part):
    """How fast both models are, measured in turns."""

    tokens: int
    """The tokens of a timed run: of a prompt that is read, or written one after the other."""
    intact: Number
    """The intact model's tokens per second."""
    intact_stderr: Number
    """The standard error of it."""
    small: Number
    """The smaller model's tokens per second."""
    small_stderr: Number
    """The standard error of it."""
    factor: Number
    """How many times as fast the smaller model is."""
    factor_stderr: Number
    """The standard error of it, by the ratios within the turns."""


class TaskRetained(Part):
    """A task, by the metric that it counts by."""

    task: str
    """The task."""
    metric: str
    """The metric."""
    intact: Measured
    """The intact model's value."""
    small: Measured
    """The smaller model's value."""
    retained: Share | None
    """What is retained of the task; null if the intact model does not know enough."""


class HealingStage(Part):
    """A stage of healing, each of which goes on from the one before."""

    label: str
    """The label of the healer."""
    healer: str
    """Its name."""
    kept: bool
    """Whether its result was kept."""
    why: str
    """Why it was not kept, or something else was done than was asked for; else empty."""
    healing: Repaired | None
    """What it did; null if it failed."""
    minutes: Number
    """How long it took, in the run of the command that finished it."""


class ShrinkReport(Versioned):
    """The document that `layerimp shrink` prints with `--json`."""

    schema_version: Literal["layerimp.shrink/1"] = versioned("layerimp.shrink/1")
    verdict: Verdict
    """Whether the smaller model is good: within the limits that are explained with fidelity."""
    reasons: list[str]
    """Why it is poor, or why it is not measured; else empty."""
    advice: list[str]
    """What would help; empty if it is good."""
    model: str
    """The intact model, as it was named."""
    loader: str
    """The stock class that loads the smaller model."""
    output: str | None
    """The directory of the smaller model; null if it was not written."""
    intact: Size
    """The size of the intact model."""
    small: Size
    """The size of the smaller model."""
    cache: dict[str, Number]
    """The bytes that the cache takes per token, of the `intact` and the `small` model; empty if that is not known."""
    targets: dict[str, Target]
    """The sizes that were asked for, by quantity."""
    reached: dict[str, ReachedTarget]
    """The values beside them."""
    speeds: dict[str, BothSpeeds]
    """The speed of `prefill` and of `decoding`, as far as they could be measured."""
    plan: PrunePlan
    """What was removed, in order, and by what scores."""
    stages: list[HealingStage]
    """The stages of healing, in order."""
    tasks: list[TaskRetained]
    """The tasks."""
    retained: Retained | None
    """What is retained on average over the tasks; null without tasks."""
    fidelity: Fidelity | None
    """How far the smaller model is from the intact one."""
    samples: list[Sample]
    """How both models continue the prompts in the model card: beginnings of text that ships, never of the user's."""
    calibration: Calibration
    """The text by which blocks were chosen and repaired."""
    training_text: TrainingText | None
    """Further text that the stages which were kept have read; null if there is none."""
    failures: dict[str, str] = Field(default_factory=dict, exclude_if=lambda failures: not failures)
    """Why an evaluator failed, by label; what it measures is then not known."""
    minutes: dict[str, Number]
    """How long each part took: `choose`, a part for each stage of healing, `measure` and `write`."""
    memory: dict[str, int]
    """The most memory that was in use, in bytes, by device."""
    recipe: dict[str, Any]
    """The recipe that makes the same again."""

    @property
    def removed_share(self) -> dict[str, float]:
        """What was removed, as shares of blocks, parameters and bytes."""
        return (self.intact - self.small).share_of(self.intact)

    @property
    def failed(self) -> list[str]:
        """The labels of the stages of healing and of the evaluators that failed."""
        return [*(stage.label for stage in self.stages if stage.healing is None), *self.failures]

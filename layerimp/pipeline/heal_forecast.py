"""The forecast of `layerimp heal`, made without reading weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from layerimp.component import versioned
from layerimp.healing.origin import check_shapes
from layerimp.pipeline.durations import Durations
from layerimp.pipeline.forecast_parts import ROUGHLY, MemoryForecast
from layerimp.pipeline.healing import with_decisions
from layerimp.pipeline.outline import Outline
from layerimp.pipeline.resolve import row_length
from layerimp.report.results.models import Size
from layerimp.report.results.part import Known, Part, Versioned
from layerimp.steps import Step, named, removed_by, runs_of, steps_of

if TYPE_CHECKING:
    from layerimp.pipeline.heal_checkpoint import PreparedHealing


class HealedSizes(Part):
    """The sizes of the two models in healing."""

    teacher: Size
    """The size of the intact model."""
    pruned: Size
    """The size of the pruned model, and so of the healed one."""


class HealingTime(Part):
    """An estimate of the time, from one block of each kind with random weights; reality may be far off."""

    block_ms: Known
    """Measured: one block and one batch of the text, in milliseconds; null if unknown."""
    pass_s: Known
    """Estimated: one pass of both models over the text, in seconds; null if unknown."""
    healing_s: Known
    """Estimated: healing, in seconds; null if unknown."""


class HealingForecast(Versioned):
    """The document that `heal` prints with `--dry-run --json`."""

    schema_version: Literal["layerimp.healing-forecast/1"] = versioned("layerimp.healing-forecast/1")
    model: str
    """The pruned model, as it was named."""
    teacher: str
    """The intact model."""
    removed: list[Step]
    """The steps removed from the intact model."""
    gaps: list[str]
    """What was removed at each gap, in words."""
    healer: str
    """The healer."""
    options: dict[str, Any]
    """The healer's options."""
    sizes: HealedSizes
    """The sizes of both models."""
    text: str
    """The text that drives healing."""
    further_text: str | None
    """Further text that a healer may train on; null for none."""
    tokens: int
    """How many tokens are drawn from the text, at most."""
    memory: MemoryForecast
    """The memory for both models."""
    time: HealingTime
    """The time of one pass, without reading the models."""
    notes: list[str]
    """Notes for a reader."""


def healing_forecast_of(prepared: PreparedHealing) -> HealingForecast:
    """Forecast the work of a prepared healing. Nothing is loaded, healed or written.

    Raises:
        InputError: something in the request is wrong, as far as this can be seen without the weights.
    """
    recipe, healer, record = prepared.recipe, prepared.healer, prepared.record
    trusted = prepared.permissions.trust_remote_code
    teacher = Outline.of(record.source, trust_remote_code=trusted)
    pruned = Outline.of(recipe.model, dtype=recipe.dtype, trust_remote_code=trusted)
    check_shapes(teacher.stack, pruned.stack, record.removed)
    text, length = recipe.calibration, row_length(recipe.calibration, pruned.stack.model)
    durations, gaps = Durations(teacher, recipe, length), list(runs_of(removed_by(record.removed)))
    sizes = HealedSizes(teacher=teacher.size, pruned=pruned.size)
    both = pruned.size.parameters + teacher.size.parameters
    # Both models compute in the dtype of the pruned one.
    memory = MemoryForecast.of(
        pruned, recipe, prepared.permissions, verifies=recipe.verify, beside=sizes.teacher.parameters
    )
    # What no healer has changed is shared; of a model that was healed before it is not known what that is.
    shared = 0 if record.healers else memory.weights * pruned.size.parameters // both
    decided = memory.decisions({healer.name: healer}, pruned.stack, durations.scope(len(gaps)), shared=shared)
    return HealingForecast(
        model=recipe.model,
        teacher=record.source,
        removed=list(record.removed),
        gaps=[named(steps_of(gap)) for gap in gaps],
        healer=prepared.label,
        options=healer.config.model_dump(mode="json"),
        sizes=sizes,
        text=str(text.source),
        further_text=recipe.heal_text,
        tokens=text.samples * length,
        memory=memory,
        time=HealingTime(
            block_ms=durations.block_ms,
            pass_s=durations.passes(1 + len(pruned.stack) / len(teacher.stack)),
            healing_s=durations.healing(with_decisions({healer.name: healer}, decided), len(gaps)),
        ),
        notes=[*(f"{healer.name}: {decision.words}" for decision in decided.values()), ROUGHLY],
    )

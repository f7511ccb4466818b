"""The forecast of `layerimp heal`, made without reading weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from layerimp._paths import expanded
from layerimp.blocks.memory import free_bytes
from layerimp.checkpoint.staging import check_target
from layerimp.healing.engine import check_shapes
from layerimp.models.dtypes import name_of
from layerimp.pipeline.ahead import check_ahead
from layerimp.pipeline.durations import ROUGHLY, Durations
from layerimp.pipeline.heal_checkpoint import begun, why_not_healed
from layerimp.pipeline.outline import Outline
from layerimp.pipeline.output import refuse_precious
from layerimp.pipeline.stages import check_calibration, row_length
from layerimp.report.conversion import finite
from layerimp.steps import checked_steps, named, removed_by, runs_of, steps_of

if TYPE_CHECKING:
    from layerimp.progress import Progress
    from layerimp.recipe import Permissions, Recipe
    from layerimp.report.forecast_documents import HealingForecast, MemoryForecast, ModelSize
    from layerimp.steps import Step


def foretell_healing(
    asked: Recipe,
    *,
    teacher: str | None,
    removed: Sequence[Step] | None,
    healer: str,
    options: Mapping[str, Any],
    permissions: Permissions,
    progress: Progress,
) -> HealingForecast:
    """Forecast the work of `heal_checkpoint` with the same arguments. Nothing is loaded, healed or written.

    Raises:
        InputError: an argument is wrong, as far as this can be seen without the weights.
    """
    recipe, repairer, record = begun(asked, teacher, removed, healer, options, progress)
    check_ahead(record.source, permissions, partial(checked_steps, record.removed, what="removed block"))
    output = expanded(recipe.output or "").absolute()
    for model in (recipe.model, record.source):
        refuse_precious(output, model)
    check_target(output, why_not=why_not_healed if recipe.overwrite else None)
    check_calibration(recipe, permissions, progress)
    trusted = permissions.trust_remote_code
    theirs = Outline.of(record.source, trust_remote_code=trusted)
    ours = Outline.of(recipe.model, trust_remote_code=trusted)
    check_shapes(theirs.stack, ours.stack, record.removed)
    spec, length = recipe.calibration, row_length(recipe.calibration, ours.stack.model)
    durations, gaps = Durations(theirs, recipe, length), list(runs_of(removed_by(record.removed)))
    size = ours.ledger.left(())
    return {
        "schema_version": "layerimp.healing-forecast/1",
        "model": recipe.model,
        "teacher": record.source,
        "removed": list(record.removed),
        "gaps": [named(steps_of(run)) for run in gaps],
        "healer": healer,
        "options": repairer.config.model_dump(mode="json"),
        "sizes": {"teacher": _size(theirs), "pruned": _size(ours)},
        "text": str(spec.source),
        "further_text": recipe.heal_text,
        "tokens": spec.samples * length,
        "memory": _memory(recipe, theirs, ours, permissions),
        "time": {
            "block_ms": finite(durations.block and 1000 * durations.block),
            "pass_s": finite(durations.passes(1 + len(ours.stack) / len(theirs.stack))),
            "healing_s": finite(durations.healing([repairer], len(gaps))),
        },
        "writes": [{"path": str(output), "bytes": {"least": size.bytes, "most": size.bytes}}],
        "notes": [ROUGHLY],
    }


def _size(outline: Outline) -> ModelSize:
    whole = outline.ledger.left(())
    return {"blocks": len(outline.stack), "parameters": whole.parameters, "bytes": whole.bytes}


def _memory(recipe: Recipe, theirs: Outline, ours: Outline, permissions: Permissions) -> MemoryForecast:
    """Forecast the memory for the weights of both models, which compute in the dtype of the pruned model."""
    place, dtype = ours.computed_in(recipe, permissions)
    pruned, intact = (one.ledger.left(()).parameters * dtype.itemsize for one in (ours, theirs))
    return {
        "device": str(place),
        "dtype": name_of(dtype),
        "weights": pruned + intact,
        "streamed": False,
        "verifying": pruned if recipe.verify else 0,
        "free": free_bytes(place),
    }

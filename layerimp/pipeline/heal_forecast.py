"""The forecast of `layerimp heal`, made without reading weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerimp._paths import expanded
from layerimp.blocks.memory import free_bytes
from layerimp.healing.engine import check_shapes
from layerimp.models.dtypes import name_of
from layerimp.pipeline.durations import ROUGHLY, Durations
from layerimp.pipeline.heal_checkpoint import prepare_healing
from layerimp.pipeline.outline import Outline
from layerimp.pipeline.resolve import row_length
from layerimp.report.conversion import finite
from layerimp.steps import named, removed_by, runs_of, steps_of

if TYPE_CHECKING:
    from layerimp.pipeline.heal_checkpoint import HealingRequest
    from layerimp.progress import Progress
    from layerimp.recipe import Permissions, Recipe
    from layerimp.report.forecast_documents import HealingForecast, MemoryForecast, ModelSize


def foretell_healing(request: HealingRequest, *, permissions: Permissions, progress: Progress) -> HealingForecast:
    """Forecast the work of `heal_checkpoint` with the same arguments. Nothing is loaded, healed or written.

    Raises:
        InputError: something in the request is wrong, as far as this can be seen without the weights.
    """
    prepared = prepare_healing(request, permissions, progress)
    recipe, healer, record = prepared.recipe, prepared.healer, prepared.record
    trusted = permissions.trust_remote_code
    theirs = Outline.of(record.source, trust_remote_code=trusted)
    ours = Outline.of(recipe.model, trust_remote_code=trusted)
    check_shapes(theirs.stack, ours.stack, record.removed)
    spec, length = recipe.calibration, row_length(recipe.calibration, ours.stack.model)
    durations, gaps = Durations(theirs, recipe, length), list(runs_of(removed_by(record.removed)))
    size, output = ours.ledger.left(()), str(expanded(recipe.output or "").absolute())
    return {
        "schema_version": "layerimp.healing-forecast/1",
        "model": recipe.model,
        "teacher": record.source,
        "removed": list(record.removed),
        "gaps": [named(steps_of(run)) for run in gaps],
        "healer": prepared.label,
        "options": healer.config.model_dump(mode="json"),
        "sizes": {"teacher": _size(theirs), "pruned": _size(ours)},
        "text": str(spec.source),
        "further_text": recipe.heal_text,
        "tokens": spec.samples * length,
        "memory": _memory(recipe, theirs, ours, permissions),
        "time": {
            "block_ms": finite(durations.block and 1000 * durations.block),
            "pass_s": finite(durations.passes(1 + len(ours.stack) / len(theirs.stack))),
            "healing_s": finite(durations.healing([healer], len(gaps))),
        },
        "writes": [{"path": output, "bytes": {"least": size.bytes, "most": size.bytes}}],
        "notes": [ROUGHLY],
    }


def _size(outline: Outline) -> ModelSize:
    whole = outline.ledger.left(())
    return {"blocks": len(outline.stack), "parameters": whole.parameters, "bytes": whole.bytes}


def _memory(recipe: Recipe, theirs: Outline, ours: Outline, permissions: Permissions) -> MemoryForecast:
    """Forecast the memory for the weights of both models, which compute in the dtype of the pruned model."""
    place, dtype = ours.computed_in(recipe, permissions)
    pruned, intact = (outline.ledger.left(()).parameters * dtype.itemsize for outline in (ours, theirs))
    return {
        "device": str(place),
        "dtype": name_of(dtype),
        "weights": pruned + intact,
        "offloaded": False,
        "verifying": pruned if recipe.verify else 0,
        "free": free_bytes(place),
    }

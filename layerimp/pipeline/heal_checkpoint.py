"""Healing a pruned checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerimp._paths import expanded
from layerimp.cache.unfinished import Unfinished
from layerimp.checkpoint.record import Record, read_record
from layerimp.checkpoint.saving import write
from layerimp.defaults import HEALER
from layerimp.errors import InputError, ModelError
from layerimp.healer import Healer
from layerimp.healing.engine import Healed, heal_beside
from layerimp.models.dtypes import name_of
from layerimp.models.loading import auto_class
from layerimp.models.origin import CARD, origin_of
from layerimp.pipeline.ahead import check_ahead
from layerimp.pipeline.healing import check_heal_text, configured, further_text
from layerimp.pipeline.output import output_directory
from layerimp.pipeline.resolve import resolve, told
from layerimp.pipeline.stages import check_calibration, draw, load_model
from layerimp.progress import SILENT, Progress
from layerimp.registry.assets import absolute, assets
from layerimp.report import conversion
from layerimp.report.healed_card import healed_card
from layerimp.report.healing import recovery
from layerimp.steps import Step, checked_steps, simplest

if TYPE_CHECKING:
    from layerimp.calibration.sampling import CalibrationSet
    from layerimp.pipeline.stages import Loaded
    from layerimp.recipe import Permissions, Recipe
    from layerimp.report.documents import HealingReport


def heal_checkpoint(
    asked: Recipe,
    *,
    teacher: str | None = None,
    removed: Sequence[Step] | None = None,
    healer: str = HEALER,
    options: Mapping[str, Any] | None = None,
    permissions: Permissions,
    progress: Progress = SILENT,
) -> HealingReport:
    """Repair a pruned checkpoint, and write the result as a checkpoint.

    Args:
        asked: A recipe, of which only the pruned model, the text and the output are read.
        teacher: The intact model; by default the one named in the checkpoint's record.
        removed: The removed steps; by default those in the record.
        healer: The name of a healer.
        options: The healer's options.
        permissions: Which code that came with data may run.
        progress: Where to report progress.

    Returns:
        A JSON document that says what was done.

    Raises:
        InputError: an argument is wrong, or there is no record of what was removed.
        LayerimpError: healing failed; nothing is left under the output's name.
    """
    recipe, repairer, record = begun(asked, teacher, removed, healer, options or {}, progress)
    check_ahead(record.source, permissions, partial(checked_steps, record.removed, what="removed block"))
    with Unfinished() as unfinished, output_directory(recipe, why_not_healed, [record.source]) as stage:
        assert stage is not None
        trained_on = check_calibration(recipe, permissions, progress)
        ours = load_model(recipe, permissions, progress)
        same = {"model": record.source, "dtype": name_of(ours.model.dtype)}
        theirs = load_model(recipe.model_copy(update=same), permissions, progress)
        record = record.model_copy(update={"num_blocks": len(theirs.stack)})
        drawn = draw(recipe, ours, trained_on, progress)
        further = further_text(recipe, ours, drawn, permissions, progress) or ()
        found = heal_beside(
            *(theirs.stack, ours.stack, record.removed, drawn, repairer),
            further=further,
            unfinished=unfinished,
            progress=progress,
        )
        with progress.stage("save"):
            _save(found, ours, stage, recipe, record, repairer, drawn)
    return _document(recipe, record, found, healer, repairer, drawn)


def begun(
    asked: Recipe,
    teacher: str | None,
    removed: Sequence[Step] | None,
    healer: str,
    options: Mapping[str, Any],
    progress: Progress,
) -> tuple[Recipe, Healer, Record]:
    """Return the resolved recipe, the healer and the record of the removal; see `heal_checkpoint`."""
    recipe, repairer = resolve(asked), configured(healer, options)
    check_heal_text(recipe.heal_text, [repairer])
    if by_default := told(asked, recipe, ["calibration"]):
        progress.note(by_default)
    return recipe, repairer, _record_of(recipe.model, teacher, removed)


def _save(
    found: Healed, ours: Loaded, stage: Path, recipe: Recipe, record: Record, healer: Healer, drawn: CalibrationSet
) -> None:
    """Write the healed model, with a card and a record that name the healer, and the intact model's licence."""
    before, origin = expanded(recipe.model) / CARD, origin_of(record.source)
    origin.copy_license(stage)
    write(
        found.model,
        ours.tokenizer,
        stage,
        verify=recipe.verify,
        card=healed_card(
            before.read_text(encoding="utf-8") if before.exists() else "",
            origin,
            auto_class(found.model.config),
            recipe,
            healer,
            found.repairs,
            recovery(found.loss, found.accuracy, found.recovered),
            drawn.description,
        ),
        record=record.model_copy(update={"healers": (*record.healers, healer.name)}),
        max_shard_size=recipe.max_shard_size,
    )


def why_not_healed(directory: Path) -> str | None:
    """Tell why a directory is not a healed checkpoint; None if it is one."""
    try:
        record = read_record(directory)
    except InputError as error:
        return str(error)
    return None if record and record.healers else "it is no checkpoint that layerimp healed"


def _record_of(model: str, teacher: str | None, removed: Sequence[Step] | None) -> Record:
    """Return the record of what was removed from which model; arguments override the checkpoint's record."""
    record = read_record(expanded(model))
    if record is None and removed is None:
        raise ModelError(f"{model} has no layerimp.json that says which blocks are gone; name them with --removed")
    if record is None and teacher is None:
        raise ModelError(f"{model} has no layerimp.json that says what it was made from; name that with --teacher")
    if record and teacher is None and Path(record.source).is_absolute() and not Path(record.source).exists():
        raise ModelError(
            f"{model} was made from {record.source}, says its layerimp.json, and that is not there; name the intact "
            "model with --teacher"
        )
    known = record or Record(source="", num_blocks=1, removed=())
    changed: dict[str, Any] = {} if removed is None else {"removed": tuple(simplest(removed))}
    if teacher is not None:
        changed["source"] = absolute(teacher, assets().models)
    return known.model_copy(update=changed)


def _document(
    recipe: Recipe, record: Record, found: Healed, healer: str, repairer: Healer, drawn: CalibrationSet
) -> HealingReport:
    """Return the document that says what was done."""
    return {
        "schema_version": "layerimp.healing/1",
        "model": recipe.model,
        "teacher": record.source,
        "removed": list(record.removed),
        "healer": healer,
        "options": repairer.config.model_dump(mode="json"),
        "calibration": drawn.description,
        **conversion.repaired(found.repairs, found.loss, found.accuracy, found.recovered),
        "changed": list(found.changed),
        "output": str(expanded(recipe.output or "").absolute()),
    }

"""Healing a pruned model: one in memory, or a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerimp._version import __version__
from layerimp.calibration.sampling import document_hash
from layerimp.calibration.stream import TextStream
from layerimp.checkpoint.record import Record, read_record
from layerimp.checkpoint.saving import write
from layerimp.defaults import HEALER
from layerimp.errors import InputError, ModelError, NonFiniteError, OptionError, PluginError
from layerimp.healer import Healer
from layerimp.healing.engine import Healed, heal_beside
from layerimp.healing.loss import split
from layerimp.models.discovery import find_blocks
from layerimp.models.dtypes import name_of
from layerimp.pipeline.ahead import check_ahead
from layerimp.pipeline.resolve import resolve, told
from layerimp.pipeline.stages import calibration_values, check_calibration, draw, load_model, output_directory
from layerimp.progress import SILENT, Progress
from layerimp.pruner import PrunePlan
from layerimp.registry.assets import absolute, assets
from layerimp.registry.attribution import attributing, create
from layerimp.report import conversion
from layerimp.report.healing import Healing
from layerimp.steps import Step, Sublayer, checked_steps, removed_by, simplest
from layerimp.surgery.removal import prepare

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from layerimp.blocks.stack import Batch, BlockStack
    from layerimp.calibration.sampling import CalibrationSet
    from layerimp.evaluator import Evaluator
    from layerimp.pipeline.stages import Loaded
    from layerimp.recipe import Permissions, Recipe
    from layerimp.report.data import Report
    from layerimp.report.documents import HealingReport
    from layerimp.surgery.removal import Removal


def heal(
    model: PreTrainedModel,
    blocks: Sequence[Step] | PrunePlan,
    calibration: Iterable[Batch],
    healer: str | Healer = HEALER,
    *,
    pruned: PreTrainedModel | None = None,
    further: Iterable[Batch] = (),
    progress: Progress | None = None,
) -> Healed:
    """Repair what is left of a model without blocks.

    Args:
        model: The intact model; left as it is.
        blocks: The blocks that are gone: indices, or a plan.
        calibration: Batches of `input_ids` and `attention_mask` [batch, seq]. Of eight rows two are held out: one to
            choose by, and one to measure on.
        healer: The name of a registered healer, or a configured one.
        pruned: The model without the blocks, which gets new parameters; by default one is made beside the intact one,
            with which it shares every tensor that is not healed.
        further: More text to heal on, for healers that train, such as a `layerimp.calibration.TextStream`.
        progress: Where to report progress.

    Returns:
        The healed model, with what was done at each gap and what that brought. `save` writes it.

    Raises:
        UnknownNameError: no healer has that name.
        OptionError: a block does not exist, or comes twice.
        SurgeryError: the blocks cannot be removed exactly.
        ModelError: the two models do not belong together, or the healer cannot heal such a model.
        CalibrationError: a batch is malformed, holds ids that the model does not know, or there are not three rows.
        NonFiniteError: the healer yields a NaN.
    """
    stack = find_blocks(model)
    gone = checked_steps(blocks.blocks if isinstance(blocks, PrunePlan) else blocks, len(stack))
    if not isinstance(healer, Healer):
        healer = configured(healer, {})
    rest = find_blocks(prepare(stack, gone).beside() if pruned is None else pruned)
    return heal_beside(stack, rest, gone, calibration, healer, further=further, progress=progress or SILENT)


def further_text(recipe: Recipe, loaded: Loaded, drawn: CalibrationSet) -> TextStream | None:
    """The text that a recipe names beyond the calibration set, without what was drawn for that; None where it does not.

    Raises:
        CalibrationError: it does not exist.
    """
    if recipe.heal_text is None:
        return None
    settled = calibration_values(recipe, loaded.model, None)
    return TextStream(
        recipe.heal_text,
        loaded.tokenizer,
        max_length=settled["max_length"],
        batch_size=recipe.batch_size,
        field=recipe.calibration.field,
        packing=settled["packing"],
        without=drawn.documents,
    )


@dataclass(frozen=True)
class HealerSet:
    """The healers of a run.

    Attributes:
        healers: The healers, by label.
        further: The text beyond the calibration set that they may train on, if any.
    """

    healers: Mapping[str, Healer]
    further: TextStream | None = None

    def heal(
        self, label: str, intact: BlockStack, removal: Removal, drawn: CalibrationSet, progress: Progress
    ) -> Healed:
        """Repair what a removal leaves, beside the intact model; see `heal_beside`."""
        rest, further = find_blocks(removal.beside()), self.further or ()
        healer = self.healers[label]
        return heal_beside(intact, rest, removal.gone, drawn, healer, further=further, progress=progress)


def check_text(
    recipe: Recipe, evaluators: Mapping[str, Evaluator], drawn: CalibrationSet, further: TextStream | None = None
) -> None:
    """Refuse text that is too little to heal on, or that holds documents which the healed models are measured on.

    Raises:
        CalibrationError: there are not three rows, or the further text cannot be read.
        OptionError: a document is shared, and the recipe does not allow that.
    """
    split(drawn)
    if recipe.allow_overlap:
        return
    more = frozenset(further.hashes()) if further else frozenset()
    for label, evaluator in evaluators.items():
        with attributing("evaluator", label, type(evaluator)):
            measured = {document_hash(text) for text in evaluator.texts()}
        for source, documents in ((drawn.source, drawn.documents), (recipe.heal_text, more)):
            if shared := len(measured & documents):
                raise OptionError(
                    f"the text of {source} shares {shared} of its {len(documents)} documents with the tasks, and "
                    "healing on it would flatter the healed models; name other text, or allow it (--allow-overlap)"
                )


def heal_pruned(
    report: Report,
    loaded: Loaded,
    removals: Mapping[str, Removal],
    healers: HealerSet,
    drawn: CalibrationSet,
    progress: Progress,
) -> dict[str, PreTrainedModel]:
    """Let every healer repair every pruned model, into the report; what cannot be healed is noted there as failed.

    Plans that remove the same blocks share a model.

    Returns:
        The healed models by their labels, `SCORER+HEALER`, beside the intact one.
    """
    models: dict[str, PreTrainedModel] = {}
    known: dict[tuple[frozenset[Sublayer], str], str] = {}
    for (scorer, removal), name in product(removals.items(), healers.healers):
        label = f"{scorer}+{name}"
        same = known.setdefault((removed_by(removal.gone), name), label)
        if same in report.failed:
            report.failed[label] = report.failed[same]
            continue
        if same in models:
            models[label], report.healed[label] = models[same], replace(report.healed[same], scorer=scorer)
        else:
            progress.note(f"heal {label}")
            try:
                found = healers.heal(name, loaded.stack, removal, drawn, progress)
            except (ModelError, PluginError, NonFiniteError) as error:
                report.failed[label] = str(error)
                progress.note(f"{label} is left out: {error}")
                continue
            models[label] = found.model
            report.healed[label] = Healing(scorer, name, found.repairs, found.loss, found.accuracy, found.recovered)
        report.sizes[label] = report.sizes[scorer]
    return models


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
    """Repair a pruned checkpoint, and write what comes out as a checkpoint.

    Args:
        asked: The pruned model, the text and the output; of a recipe nothing else is read.
        teacher: The intact model; by default the one that the checkpoint's record names.
        removed: What is gone; by default what the record says.
        healer: The name of a healer.
        options: Its options.
        permissions: What may run code.
        progress: Where to report progress.

    Returns:
        What was done, as one JSON document.

    Raises:
        InputError: something is wrong with what was asked for, or there is no record of what is gone.
        LayerimpError: healing failed; nothing is left under the output's name.
    """
    recipe, repairer = resolve(asked), configured(healer, options or {})
    if by_default := told(asked, recipe, ["calibration"]):
        progress.note(by_default)
    record = _record_of(recipe.model, teacher, removed)
    check_ahead(record.source, permissions, partial(checked_steps, record.removed, what="removed block"))
    with output_directory(recipe, _why_not_healed, [record.source]) as stage:
        assert stage is not None
        trained_on = check_calibration(recipe, permissions, progress)
        ours = load_model(recipe, permissions, progress)
        same = {"model": record.source, "dtype": name_of(ours.model.dtype)}
        theirs = load_model(recipe.model_copy(update=same), permissions, progress)
        record = record.model_copy(update={"num_blocks": len(theirs.stack)})
        drawn = draw(recipe, ours, trained_on, progress)
        further = further_text(recipe, ours, drawn) or ()
        found = heal_beside(
            theirs.stack, ours.stack, record.removed, drawn, repairer, further=further, progress=progress
        )
        with progress.stage("save"):
            _save(found, ours, stage, recipe, record, healer, drawn)
    return _document(recipe, record, found, healer, repairer, drawn)


def _save(
    found: Healed, ours: Loaded, stage: Path, recipe: Recipe, record: Record, healer: str, drawn: CalibrationSet
) -> None:
    """Write the healed model, with a card and a record that say by whom."""
    write(
        found.model,
        ours.tokenizer,
        stage,
        verify=recipe.verify,
        card=_card(Path(recipe.model), found, healer, drawn),
        record=record.model_copy(update={"healers": (*record.healers, healer)}),
        max_shard_size=recipe.max_shard_size,
    )


def _why_not_healed(directory: Path) -> str | None:
    """Why a directory is no healed checkpoint; None if it is."""
    try:
        record = read_record(directory)
    except InputError as error:
        return str(error)
    return None if record and record.healers else "it is no checkpoint that layerimp healed"


def configured(healer: str, options: Mapping[str, Any]) -> Healer:
    """A healer.

    Raises:
        InputError: there is no such healer, or an option is wrong.
    """
    made = create("healer", healer, options)
    assert isinstance(made, Healer)
    return made


def _record_of(model: str, teacher: str | None, removed: Sequence[Step] | None) -> Record:
    """What was removed from what: as a checkpoint's record says, but for what is named."""
    record = read_record(Path(model).expanduser())
    if record is None and removed is None:
        raise ModelError(f"{model} has no layerimp.json that says which blocks are gone; name them with --removed")
    if record is None and teacher is None:
        raise ModelError(f"{model} has no layerimp.json that says what it was made from; name that with --teacher")
    known = record or Record(source="", num_blocks=1, removed=())
    changed: dict[str, Any] = {} if removed is None else {"removed": tuple(simplest(removed))}
    if teacher is not None:
        changed["source"] = absolute(teacher, assets().models)
    return known.model_copy(update=changed)


def _card(pruned: Path, found: Healed, healer: str, drawn: CalibrationSet) -> str:
    """The pruned model's card, with what was done to it."""
    before = pruned / "README.md"
    card = before.read_text(encoding="utf-8") if before.exists() else "# A pruned model\n"
    loss = ", ".join(f"{name} {value:.4f}" for name, value in found.loss.items())
    done = "; ".join(f"{repair.gap}: {repair.done}" for repair in found.repairs)
    return (
        f"{card}\n## Healed\n\n- **Method:** healer {healer}, layerimp {__version__} ({done})\n- **Text:** "
        f"{drawn.num_tokens:,} tokens (fingerprint {drawn.fingerprint})\n- **Held-out loss:** {loss}\n\n"
        "What is measured above is the model before it was healed.\n"
    )


def _document(
    recipe: Recipe, record: Record, found: Healed, healer: str, repairer: Healer, drawn: CalibrationSet
) -> HealingReport:
    """What was done, as JSON."""
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
        "output": str(Path(recipe.output or "").expanduser().absolute()),
    }

"""Healing a pruned checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerimp._paths import expanded
from layerimp.cache.unfinished import Unfinished
from layerimp.checkpoint.record import Record, read_record
from layerimp.checkpoint.saving import write
from layerimp.errors import ModelError
from layerimp.evaluation.comparing import Comparing, comparer_of
from layerimp.evaluation.selection import fitting, prepared_comparers, with_text
from layerimp.healer import Healer
from layerimp.healing.engine import Healed, heal_beside
from layerimp.healing.origin import check_shapes, share
from layerimp.indices import checked_blocks
from layerimp.models.configuration import auto_class, configuration, source_of
from layerimp.models.origin import CARD, origin_of
from layerimp.pipeline.healing import check_heal_text, configured, repaired
from layerimp.pipeline.output import check_output, output_directory, why_not_healed
from layerimp.pipeline.resolve import check_ahead, check_own_text, defaults_note, resolve, settled
from layerimp.pipeline.stages import load_model, tell_unmeasured
from layerimp.pipeline.texts import Texts, check_calibration, publishable
from layerimp.registry.assets import absolute, assets
from layerimp.report.card import HealedCheckpoint, healed_card
from layerimp.report.results.healing import HealingReport

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from layerimp.calibration.further_text import FurtherText
    from layerimp.calibration.sampling import Calibration, CalibrationSet
    from layerimp.evaluator import Evaluator
    from layerimp.fidelity.record import Fidelity, Sample
    from layerimp.pipeline.stages import Loaded
    from layerimp.progress import Progress
    from layerimp.recipe import ComponentSpec, Permissions, Recipe


@dataclass(frozen=True)
class PreparedHealing:
    """A healing that can be carried out, as far as this is known before weights are read.

    Attributes:
        recipe: The recipe, with the text that is used by default.
        label: The name that the healer was requested by.
        healer: The healer.
        record: What was removed from which model.
        named: The intact model (`teacher`) and the `removed` blocks, if they were named and not read from a record.
        trained_on: The evaluator of the task whose training split is the text; None for other texts.
        comparers: What compares the models with the intact one, by label; at most one.
        permissions: Which code that came with data may run.
        progress: Where to report progress.
    """

    recipe: Recipe
    label: str
    healer: Healer
    record: Record
    named: Mapping[str, str]
    trained_on: Evaluator | None
    comparers: Mapping[str, Evaluator]
    permissions: Permissions
    progress: Progress


def prepare_healing(
    given: Recipe,
    healer: ComponentSpec,
    permissions: Permissions,
    progress: Progress,
    teacher: str | None = None,
    removed: Sequence[int] | None = None,
) -> PreparedHealing:
    """Prepare the healing of a checkpoint. Nothing is loaded, healed or written.

    Args:
        given: A recipe: the pruned model, the texts, and how the checkpoint is compared and written. What chooses and
            heals is not read.
        healer: The healer.
        permissions: Which code that came with data may run.
        progress: Where to report progress.
        teacher: The intact model; by default the one named in the checkpoint's record.
        removed: The removed blocks; by default those in the record.

    Raises:
        InputError: something in the request is wrong, as far as this can be seen without the weights; or there is no
            record of what was removed.
    """
    recipe, made = resolve(given), configured(healer.name, healer.options)
    check_heal_text(recipe.heal_text, [made])
    record = _record_of(recipe.model, teacher, removed)
    check_own_text(given, configuration(given.model, trust_remote_code=permissions.trust_remote_code))
    if by_default := defaults_note(given, recipe, ["calibration"], names_method=False):
        progress.note(by_default)
    check_ahead(record.source, permissions, partial(checked_blocks, record.removed, what="removed block"))
    check_output(recipe, why_not_healed, [record.source])
    return PreparedHealing(
        recipe=recipe,
        label=healer.name,
        healer=made,
        record=record,
        named={
            option: text
            for option, text in (("teacher", teacher), ("removed", ",".join(map(str, removed or ()))))
            if text
        },
        trained_on=check_calibration(recipe, permissions, progress),
        comparers=prepared_comparers(recipe, permissions, progress),
        permissions=permissions,
        progress=progress,
    )


def heal_checkpoint(prepared: PreparedHealing) -> HealingReport:
    """Repair a pruned checkpoint, and write the result as a checkpoint.

    Returns:
        A JSON document that says what was done.

    Raises:
        InputError: something in the request is wrong.
        LayerimpError: healing failed; nothing is left under the output's name.
    """
    permissions, progress = prepared.permissions, prepared.progress
    source = prepared.record.source
    with Unfinished() as unfinished, output_directory(prepared.recipe, why_not_healed, [source]) as stage:
        assert stage is not None
        ours = load_model(prepared.recipe, permissions, progress)
        recipe = settled(prepared.recipe, ours.model)
        theirs = load_model(recipe.model_copy(update={"model": source}), permissions, progress)
        check_shapes(theirs.stack, ours.stack, prepared.record.removed)
        share(theirs.stack, ours.stack, prepared.record.removed)
        record = prepared.record.model_copy(update={"num_blocks": len(theirs.stack)})
        known = record.fidelity_text
        texts = Texts(recipe, ours, permissions, progress)
        corpus, reserved = texts.calibration(prepared.trained_on), frozenset(known.documents if known else ())
        drawn = corpus.draw(recipe.calibration.samples, recipe.seed, without=reserved)
        measured = texts.for_fidelity_again(known, drawn)
        tell_unmeasured(recipe, theirs, progress)
        taken = drawn.documents | measured.documents | reserved
        judging = texts.for_judging(corpus, taken)
        further = texts.further(taken | judging.documents)
        compare = _comparison(prepared, theirs, measured)
        fidelity = {"pruned": compare(ours.model, "the pruned model")}
        healed = heal_beside(
            *(theirs.stack, ours.stack, record.removed, drawn, prepared.healer),
            further=further,
            judging=judging,
            unfinished=unfinished,
            progress=progress,
        )
        fidelity |= {"healed": compare(healed.model, "the healed model")}
        document = _document(prepared, record, healed, drawn.description, further, fidelity)
        with progress.stage("save"):
            samples = publishable(fidelity["healed"], measured)
            card = _card(prepared, healed, record, document, samples)
            _save(prepared, healed, ours, record, card, stage)
    return document


def _comparison(
    prepared: PreparedHealing, theirs: Loaded, text: CalibrationSet
) -> Callable[[PreTrainedModel, str], Fidelity | None]:
    """Return what compares models with the intact one. If that is impossible it returns None, and a line says so.

    Raises:
        InputError: it is impossible, and the recipe requests it.
    """
    recipe, progress = prepared.recipe, prepared.progress
    comparers, _ = fitting(recipe, prepared.comparers, theirs.model, progress, lenient=False)
    comparer = comparer_of(with_text(recipe, comparers, text, progress))
    if comparer is None:
        return lambda _model, _who: None
    comparing = Comparing(*comparer, theirs.model, theirs.tokenizer, progress)
    return lambda model, who: comparing.of(model, text, who)


def _card(
    prepared: PreparedHealing,
    healed: Healed,
    record: Record,
    document: HealingReport,
    samples: Sequence[Sample],
) -> str:
    """Return the card of the healed model: that of the pruned one, with what the healer did."""
    before = expanded(prepared.recipe.model) / CARD
    checkpoint = HealedCheckpoint(
        origin=origin_of(record.source),
        loader=auto_class(healed.model.config),
        recipe=prepared.recipe,
        healer=prepared.healer,
        report=document,
        samples=samples,
        named=prepared.named,
    )
    return healed_card(before.read_text(encoding="utf-8", errors="replace") if before.exists() else "", checkpoint)


def _save(prepared: PreparedHealing, healed: Healed, ours: Loaded, record: Record, card: str, stage: Path) -> None:
    """Write the healed model, with its card, a record that names the healer, and the intact model's licence."""
    recipe = prepared.recipe
    origin_of(record.source).copy_license(stage)
    write(healed.model, ours.tokenizer, stage, verify=recipe.verify, card=card)
    record.model_copy(update={"healers": (*record.healers, prepared.healer.name)}).write(stage)


def _record_of(model: str, teacher: str | None, removed: Sequence[int] | None) -> Record:
    """Return the record of what was removed from which model; arguments override the checkpoint's record."""
    if not Path(source_of(model)).is_dir():
        raise ModelError(f"the model directory {model!r} does not exist")
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
    changed: dict[str, Any] = {} if removed is None else {"removed": tuple(sorted(removed))}
    if teacher is not None:
        changed["source"] = absolute(teacher, assets().models)
    return known.model_copy(update=changed)


def _document(
    prepared: PreparedHealing,
    record: Record,
    healed: Healed,
    text: Calibration,
    further: FurtherText | None,
    fidelity: Mapping[str, Fidelity | None],
) -> HealingReport:
    """Return the document that says what was done."""
    done = repaired(healed, further)
    return HealingReport(
        model=prepared.recipe.model,
        teacher=record.source,
        removed=list(record.removed),
        healer=prepared.label,
        options=prepared.healer.config.model_dump(mode="json"),
        calibration=text,
        changed=list(healed.changed),
        fidelity={label: each for label, each in fidelity.items() if each is not None},
        output=str(expanded(prepared.recipe.output or "").absolute()),
        **dict(done),
    )

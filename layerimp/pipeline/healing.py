"""Healing of pruned models in memory: a single model, or all models of a run."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from layerimp.cache.unfinished import Unfinished
from layerimp.calibration.further_text import FurtherText
from layerimp.calibration.sampling import document_hash
from layerimp.calibration.splits import split
from layerimp.defaults import HEALER, HUB, HUB_TEXT
from layerimp.errors import CalibrationError, OptionError
from layerimp.healer import Healer
from layerimp.healing.engine import Healed, heal_beside
from layerimp.indices import checked_blocks
from layerimp.models.discovery import find_blocks
from layerimp.progress import SILENT, Progress
from layerimp.pruner import PrunePlan
from layerimp.registry.attribution import attributing, create
from layerimp.report.results.models import Repaired, RepairedGap, TrainingText
from layerimp.surgery.removal import prepare

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from layerimp.blocks.stack import Batch
    from layerimp.calibration.sampling import CalibrationSet
    from layerimp.evaluator import Evaluator
    from layerimp.recipe import ComponentSpec, Recipe


def heal(
    model: PreTrainedModel,
    blocks: Sequence[int] | PrunePlan,
    calibration: Iterable[Batch],
    healer: str | Healer = HEALER,
    *,
    pruned: PreTrainedModel | None = None,
    further: Iterable[Batch] | None = None,
    judging: Iterable[Batch] | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Healed:
    """Repair a model from which blocks were removed.

    Args:
        model: The intact model, which is not changed.
        blocks: The removed blocks: indices, or a plan.
        calibration: Batches of `input_ids` and `attention_mask` [batch, seq]. Two of eight rows are held out: one for
            choices, and one to measure the result on.
        healer: The name of a registered healer, or an instance.
        pruned: The model without the blocks, which gets new parameters. By default one is made, which shares every
            tensor that is not healed with the intact model. If it was healed before, what has come back still counts
            from the model without the blocks.
        further: More text to heal on, for healers that train, such as a `layerimp.calibration.FurtherText`. It is read
            again and again.
        judging: Rows to decide by whether the result is kept, and which step of a training, such as 32 of other
            documents; used for nothing else. By default the rows of the calibration text that are held out for choices.
        progress: Where to report progress.
        options: The options of a healer that is given by its name, such as `minutes=1` for `distill`.

    Returns:
        The healed model, what was done at each gap, and how the loss changed. `save` writes the model.

    Raises:
        UnknownNameError: no healer, or no option of it, has that name.
        OptionError: a block does not exist, is listed twice, or a plan is for another number of blocks; or an option
            has a wrong value, or is given beside an instance.
        SurgeryError: the blocks cannot be removed exactly.
        ModelError: the two models do not belong together, or the healer cannot heal such a model.
        CalibrationError: a batch is malformed or holds ids that the model does not know, or there are fewer than
            `HEALING_ROWS` rows, or the further text has none or can be read only once.
        NonFiniteError: a value in the healed model is a NaN or an infinity.
    """
    stack = find_blocks(model)
    blocks = blocks.blocks_for(len(stack)) if isinstance(blocks, PrunePlan) else blocks
    removed = checked_blocks(blocks, len(stack))
    if not isinstance(healer, Healer):
        healer = configured(healer, options)
    elif options:
        raise OptionError(f"options are for a healer given by its name; this instance of {healer.name!r} has its own")
    rest = find_blocks(prepare(stack, removed).beside() if pruned is None else pruned)
    if further is not None:
        if iter(further) is further:
            raise CalibrationError("the further text can be read only once: give a list, or what can be iterated again")
        if next(iter(further), None) is None:
            raise CalibrationError("the further text has no rows: leave it out, or give batches of text")
    judging = list(judging or ())
    if progress is not None and not judging:
        progress.note(
            "what healing keeps is decided by the rows that options are chosen by; better by rows of other documents "
            "(judging)"
        )
    with Unfinished() as unfinished:
        return heal_beside(
            *(stack, rest, removed, calibration, healer),
            further=further,
            judging=judging,
            unfinished=unfinished,
            progress=progress or SILENT,
        )


def repaired(healed: Healed, further: FurtherText | None) -> Repaired:
    """Describe what a healer did, what it read of a further text, and the effect, as a part of the results."""
    return Repaired(
        gaps=[
            RepairedGap(
                gap=str(repair.gap),
                removed=list(repair.gap.removed),
                done=repair.done,
                why=repair.why,
                numbers=dict(repair.numbers),
            )
            for repair in healed.repairs
        ],
        loss=dict(healed.loss),
        accuracy=dict(healed.accuracy) or None,
        distance=dict(healed.distance),
        judging_rows=healed.judging_rows,
        recovered=healed.recovered,
        training_text=_read_of(further) if healed.changed else None,
    )


def _read_of(further: FurtherText | None) -> TrainingText | None:
    """Describe what was read of a further text; None if that is nothing."""
    if further is None or not further.read.count:
        return None
    source, read = HUB_TEXT if further.source == HUB else further.source, further.read
    return TrainingText(source=source, licence=further.licence, rows=read.count, hash=read.hexdigest)


def check_text(
    recipe: Recipe,
    evaluators: Mapping[str, Evaluator],
    drawn: CalibrationSet,
    judging: CalibrationSet,
    further: FurtherText | None = None,
) -> None:
    """Refuse text that is too short to heal on, or that holds documents which the healed models are measured on.

    A data set may be too large to be searched; see `leave_out_measured`.

    Args:
        recipe: The recipe.
        evaluators: What measures the healed models, by label.
        drawn: The text that is healed on.
        judging: The text by which it is decided what healing keeps.
        further: More text to heal on.

    Raises:
        CalibrationError: there are fewer than `HEALING_ROWS` rows, or the further text cannot be read.
        OptionError: a document is in the text and in a task, and the recipe does not allow that.
    """
    split(drawn)
    if recipe.allow_overlap:
        return
    for measured in filter(None, _measured_on(evaluators)):
        more = further.documents if further and not further.streamed else frozenset()
        for source, documents in ((drawn.source, drawn.documents | judging.documents), (recipe.heal_text, more)):
            if shared := len(measured & documents):
                raise OptionError(
                    f"the text of {source} shares {shared} of its {len(documents)} documents with the tasks, and "
                    "healing on it would flatter the healed models; name other text, or allow it (--allow-overlap)"
                )


def leave_out_measured(recipe: Recipe, evaluators: Mapping[str, Evaluator], further: FurtherText | None) -> None:
    """Read a data set without the documents that models are measured on, unless the recipe allows them."""
    if further is not None and further.streamed and not recipe.allow_overlap:
        for measured in _measured_on(evaluators):
            further.leave_out(measured)


def note_overlap(
    recipe: Recipe, evaluators: Mapping[str, Evaluator], source: str, documents: Collection[str], progress: Progress
) -> None:
    """Note that scorers read documents which the models are measured on, unless the recipe allows that.

    Args:
        recipe: The recipe.
        evaluators: What measures the models, by label.
        source: The text that scorers read.
        documents: The hashes of its documents.
        progress: Where to report it.
    """
    if recipe.allow_overlap:
        return
    for measured in _measured_on(evaluators):
        if shared := len(measured.intersection(documents)):
            progress.note(
                f"the text of {source} shares {shared} of its {len(documents)} documents with the tasks: "
                "blocks chosen by it seem better than they are, beside random ones too; name other text (--calibration)"
            )


def _measured_on(evaluators: Mapping[str, Evaluator]) -> Iterator[set[str]]:
    """Yield the hashes of the documents that each evaluator measures on."""
    for label, evaluator in evaluators.items():
        with attributing("evaluator", label, type(evaluator)):
            measured = {document_hash(text) for text in evaluator.texts()}
        yield measured


def healers_of(specs: Mapping[str, ComponentSpec], heal_text: str | None) -> dict[str, Healer]:
    """Make the healers of a run or a grid, by label.

    Raises:
        InputError: there is no such healer, an option is wrong, or there is further text that no healer reads.
    """
    healers = {label: configured(spec.name, spec.options) for label, spec in specs.items()}
    check_heal_text(heal_text, healers.values())
    return healers


def check_heal_text(heal_text: str | None, healers: Iterable[Healer]) -> None:
    """Refuse further text that no healer reads.

    Raises:
        OptionError: there is such text, and no healer that reads it.
    """
    if heal_text is not None and not any(healer.reads_further for healer in healers):
        raise OptionError("heal_text is read only by a healer that trains: name one as well, such as distill")


def configured(healer: str, options: Mapping[str, Any]) -> Healer:
    """Make a healer with options.

    Raises:
        InputError: there is no such healer, or an option is wrong.
    """
    component = create("healer", healer, options)
    assert isinstance(component, Healer)
    return component

"""The checkpoints of a run: weights, and beside them a card, a record and the licence of the source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from layerimp.checkpoint.record import Record
from layerimp.checkpoint.saving import write
from layerimp.models.origin import CARD, origin_of
from layerimp.pipeline.file_pruning import write_pruned
from layerimp.pipeline.resolve import model_anywhere
from layerimp.pipeline.texts import publishable, reserved
from layerimp.report.card import model_card

if TYPE_CHECKING:
    from layerimp.pipeline.run import CutModel, Run
    from layerimp.pruner import PrunePlan
    from layerimp.report.document import Results
    from layerimp.report.results.models import Removal
    from layerimp.report.results.shrunk import ShrinkReport


def checkpoint_path(label: str) -> Path:
    """The place of a checkpoint in the output directory."""
    return Path("checkpoints") / label


def write_checkpoints(run: Run, models: Mapping[str, CutModel]) -> Mapping[str, CutModel]:
    """Write the weights of a run's pruned models, if the run writes an output; those of baselines are left out.

    Returns:
        The models, by label, with the places of their checkpoints.
    """
    if run.stage is None:
        return models
    written = dict(models)
    for label, model in models.items():
        if model.contender.scorer in run.selection.baselines:
            continue
        (run.stage / checkpoint_path(label)).mkdir(parents=True)
        written[label] = write_checkpoint(run, model, checkpoint_path(label))
    return written


def write_checkpoint(run: Run, model: CutModel, place: Path) -> CutModel:
    """Write the weights of a pruned model to an existing place in the output directory, and return it with that."""
    assert run.stage is not None
    directory = run.stage / place
    if run.loaded.stack.offloaded:
        write_pruned(run.loaded, model.removal, directory, run.recipe, run.progress)
    else:
        _save(run, model, directory, f"save {place if place.name else 'the checkpoint'}")
    return replace(model, checkpoint=place)


def _save(run: Run, model: CutModel, directory: Path, what: str) -> None:
    """Write the checkpoint of a model in memory."""
    with model.in_place() as weights, run.progress.stage(what):
        write(weights, run.loaded.tokenizer, directory, verify=run.recipe.verify)


def describe_checkpoints(run: Run, results: Results) -> None:
    """Put the card and the record of each checkpoint, and the licence of its source, beside the weights."""
    for removal in results.model.removals:
        (model,) = removal.models
        if run.stage is not None and model.checkpoint is not None:
            healers = (run.recipe.healers[removal.healer].name,) if removal.healer else ()
            describe_checkpoint(run, results, removal, checkpoint_path(removal.label), healers)


def describe_checkpoint(
    run: Run,
    results: Results,
    removal: Removal,
    place: Path,
    healers: Sequence[str],
    shrunk: ShrinkReport | None = None,
) -> None:
    """Put a card, a record and the licence of the source beside the weights of a checkpoint.

    Args:
        run: The run.
        results: Its results.
        removal: The removal whose only model this is.
        place: The place of the checkpoint in the output directory.
        healers: The names of the healers that changed the model, in order.
        shrunk: The report of `layerimp shrink`; None for another command.
    """
    assert run.stage is not None
    directory, origin = run.stage / place, origin_of(run.resolved.model)
    origin.copy_license(directory)
    samples = shrunk.samples if shrunk else publishable(removal.models[0].fidelity, run.reserved)
    card = model_card(results, removal.label, origin, command=run.command, samples=samples)
    (directory / CARD).write_text(card, encoding="utf-8")
    _record(run, removal.models[0].plan, healers).write(directory)


def _record(run: Run, plan: PrunePlan, healers: Sequence[str]) -> Record:
    """What a checkpoint was made from."""
    return Record(
        source=model_anywhere(run.resolved.model),
        num_blocks=plan.num_blocks,
        removed=tuple(sorted(plan.blocks)),
        healers=tuple(healers),
        fidelity_text=None if run.reserved is None else reserved(run.reserved),
    )

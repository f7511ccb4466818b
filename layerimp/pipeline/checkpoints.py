"""The checkpoints of a run: weights, and beside them a card, a record and the licence of the source."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from layerimp.checkpoint.record import Record
from layerimp.checkpoint.saving import write
from layerimp.defaults import ORIGINAL
from layerimp.evaluation.selection import data_files
from layerimp.models.origin import CARD, origin_of
from layerimp.pipeline.resolve import model_anywhere
from layerimp.pipeline.texts import reserved
from layerimp.report.checkpoint import Checkpoint
from layerimp.report.model_card import model_card
from layerimp.steps import simplest

if TYPE_CHECKING:
    from layerimp.pipeline.run import Run, StageResults


def checkpoint_path(label: str) -> Path:
    """The place of a checkpoint in the output directory."""
    return Path("checkpoints") / label


def write_checkpoints(run: Run, stages: StageResults) -> dict[str, Path]:
    """Write the pruned models of a run that writes an output; those of baselines are left out.

    Returns:
        The places of the checkpoints in the output directory, by label.
    """
    if run.stage is None:
        return {}
    paths: dict[str, Path] = {}
    for label, model in stages.models.items():
        if model.contender.scorer in run.selection.baselines:
            continue
        paths[label] = checkpoint_path(label)
        directory = run.stage / paths[label]
        directory.mkdir(parents=True)
        with model.in_place() as weights, run.progress.stage(f"save {paths[label]}"):
            write(
                weights,
                run.loaded.tokenizer,
                directory,
                verify=run.recipe.verify,
                card=_card(run, stages, label, directory),
                record=_record(run, stages, label),
                max_shard_size=run.recipe.max_shard_size,
            )
    return paths


def describe_checkpoint(run: Run, stages: StageResults, label: str) -> None:
    """Put the card, the record and the source's licence of a checkpoint beside its weights."""
    assert run.stage is not None
    directory = run.stage / checkpoint_path(label)
    (directory / CARD).write_text(_card(run, stages, label, directory), encoding="utf-8")
    _record(run, stages, label).write(directory)


def _card(run: Run, stages: StageResults, label: str, directory: Path) -> str:
    """Return the card of a checkpoint, and copy the file of its source's licence, if there is one, beside it."""
    origin = origin_of(run.asked.model)
    origin.copy_license(directory)
    model = stages.models[label]
    checkpoint = Checkpoint(
        contender=model.contender,
        recipe=run.asked,
        loader=run.loader,
        plan=model.plan,
        intact=run.size,
        size=model.size,
        standing=model.standing,
        healing=model.healing,
        calibration=None if run.drawn is None else run.drawn.description,
        before=stages.metrics.get(ORIGINAL, ()),
        after=stages.metrics.get(label, ()),
        scored=bool(stages.importance),
        data_files=data_files(run.evaluators),
    )
    return model_card(checkpoint, origin, command=run.command)


def _record(run: Run, stages: StageResults, label: str) -> Record:
    """What a checkpoint was made from."""
    model = stages.models[label]
    healer = model.contender.healer
    return Record(
        source=model_anywhere(run.asked.model),
        num_blocks=model.plan.num_blocks,
        removed=tuple(simplest(model.plan.blocks)),
        healers=(run.recipe.healers[healer].name,) if healer else (),
        fidelity_text=None if run.reserved is None else reserved(run.reserved),
    )

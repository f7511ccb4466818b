"""The checkpoints of a run: weights, and beside them a card, a record and the licence of the source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from layerimp.checkpoint.record import Record
from layerimp.checkpoint.saving import write
from layerimp.models.origin import CARD, origin_of
from layerimp.pipeline.file_pruning import offloaded_blocks, write_pruned
from layerimp.pipeline.resolve import model_anywhere
from layerimp.pipeline.texts import reserved
from layerimp.report.card import model_card
from layerimp.steps import simplest

if TYPE_CHECKING:
    from layerimp.pipeline.run import PrunedModel, Run
    from layerimp.pruner import PrunePlan
    from layerimp.report.document import Results


def checkpoint_path(label: str) -> Path:
    """The place of a checkpoint in the output directory."""
    return Path("checkpoints") / label


def write_checkpoints(run: Run, models: Mapping[str, PrunedModel]) -> Mapping[str, PrunedModel]:
    """Write the weights of a run's pruned models, if the run writes an output; those of baselines are left out.

    Returns:
        The models, by label, with the places of their checkpoints.
    """
    if run.stage is None:
        return models
    stack, written = run.loaded.stack, dict(models)
    if stack.offloaded:
        with run.progress.stage("check the weights that were not read"):
            offloaded_blocks(stack).refuse_non_finite_rest()
    for label, model in models.items():
        if model.contender.scorer in run.selection.baselines:
            continue
        written[label] = replace(model, checkpoint=checkpoint_path(label))
        directory = run.stage / checkpoint_path(label)
        directory.mkdir(parents=True)
        if stack.offloaded:
            write_pruned(run.loaded, model.removal, directory, run.recipe, run.progress)
        else:
            _save(run, label, model, directory)
    return written


def _save(run: Run, label: str, model: PrunedModel, directory: Path) -> None:
    """Write the checkpoint of a model in memory."""
    with model.in_place() as weights, run.progress.stage(f"save {checkpoint_path(label)}"):
        write(
            weights,
            run.loaded.tokenizer,
            directory,
            verify=run.recipe.verify,
            max_shard_size=run.recipe.max_shard_size,
        )


def describe_checkpoints(run: Run, results: Results) -> None:
    """Put the card and the record of each checkpoint, and the licence of its source, beside the weights."""
    origin = origin_of(run.asked.model)
    for removal in results.model.removals:
        (model,) = removal.models
        if run.stage is not None and model.checkpoint is not None:
            directory = run.stage / checkpoint_path(removal.label)
            origin.copy_license(directory)
            card = model_card(results, removal.label, origin, command=run.command)
            (directory / CARD).write_text(card, encoding="utf-8")
            _record(run, model.plan, removal.healer).write(directory)


def _record(run: Run, plan: PrunePlan, healer: str) -> Record:
    """What a checkpoint was made from."""
    return Record(
        source=model_anywhere(run.asked.model),
        num_blocks=plan.num_blocks,
        removed=tuple(simplest(plan.blocks)),
        healers=(run.recipe.healers[healer].name,) if healer else (),
        fidelity_text=None if run.reserved is None else reserved(run.reserved),
    )

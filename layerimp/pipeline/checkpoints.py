"""The checkpoints of a run: weights, and beside them a card, a record and the licence of the source."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from layerimp.checkpoint.record import Record
from layerimp.checkpoint.saving import write
from layerimp.models.origin import CARD, origin_of
from layerimp.pipeline.resolve import model_anywhere
from layerimp.pipeline.texts import reserved
from layerimp.report.card import model_card
from layerimp.steps import simplest

if TYPE_CHECKING:
    from layerimp.pipeline.run import Run, StageResults
    from layerimp.pruner import PrunePlan
    from layerimp.report.document import Results


def checkpoint_path(label: str) -> Path:
    """The place of a checkpoint in the output directory."""
    return Path("checkpoints") / label


def write_checkpoints(run: Run, stages: StageResults) -> dict[str, Path]:
    """Write the weights of a run's pruned models, if the run writes an output; those of baselines are left out.

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
                max_shard_size=run.recipe.max_shard_size,
            )
    return paths


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

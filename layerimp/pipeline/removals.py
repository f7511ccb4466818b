"""The plans by each scorer, and the preparation of their removals."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from layerimp.calibration.sampling import CalibrationSet
from layerimp.checkpoint.saving import check_memory
from layerimp.errors import OutputError
from layerimp.pipeline.ahead import budget_of, check_plans, default_ratio
from layerimp.pipeline.rescoring import rescoring
from layerimp.pipeline.resolve import made_pruner, model_anywhere
from layerimp.pipeline.scores import score_blocks
from layerimp.pipeline.targets import Goal
from layerimp.pruner import Budget, PrunePlan
from layerimp.recipe import check_label
from layerimp.registry.attribution import attributing
from layerimp.report.data import Size
from layerimp.steps import Sublayer, removed_by
from layerimp.surgery.removal import Removal, prepare

if TYPE_CHECKING:
    from layerimp.pipeline.stages import Loaded
    from layerimp.progress import Progress
    from layerimp.pruner import Pruner
    from layerimp.report.data import Report
    from layerimp.scoring.selection import Selection


def plan_removals(
    report: Report, loaded: Loaded, drawn: CalibrationSet, selection: Selection, progress: Progress
) -> dict[str, PrunePlan]:
    """Score the blocks into the report, and let the pruner make a plan by each scorer.

    Scorers that fail leave the selection. If the recipe names neither an amount nor blocks, a quarter of the blocks is
    removed. If it names targets, each plan is as long as the targets require.
    """
    recipe, stack = report.recipe, loaded.stack
    goal = Goal.of(recipe, stack, loaded.tokenizer, progress) if recipe.targets else None
    budget = goal.budget if goal else budget_of(recipe, len(stack))
    if not goal and (ratio := default_ratio(recipe)) is not None:
        report.resolved["ratio"] = ratio
    score_blocks(report, loaded.stack, drawn, selection, progress)
    plans, pruner = {}, made_pruner(recipe.pruner, recipe.cuts)
    for label in list(selection.specs):
        with selection.excusing(label):
            ask = planner(report, loaded, drawn, selection, label, pruner, progress)
            if goal:
                plans[label], report.reached[label] = goal.reached(ask)
            else:
                plans[label] = ask(budget)
    return plans


def planner(
    report: Report,
    loaded: Loaded,
    drawn: CalibrationSet,
    selection: Selection,
    label: str,
    pruner: Pruner,
    progress: Progress,
) -> Callable[[Budget], PrunePlan]:
    """Return a function that makes plans by one scorer's scores, which are in the report."""
    recipe, name = report.recipe, report.recipe.pruner.name
    origin = {"scorer": selection.specs[label].name, "pruner": name, "model": model_anywhere(recipe.model)}
    first = report.importance[label]
    scoring = rescoring(
        *(loaded.stack, drawn, first, selection, label, progress), cuts=recipe.cuts, rows=pruner.rescored_rows
    )

    def plan(budget: Budget) -> PrunePlan:
        with attributing("pruner", name, type(pruner), f"on the scores of {label}"):
            made = pruner.within_budget(scoring, budget)
            return made.model_copy(update={**origin, "nested": pruner.nested})

    return plan


def prepare_removals(
    report: Report, loaded: Loaded, plans: Mapping[str, PrunePlan], selection: Selection, stage: Path | None
) -> dict[str, Removal]:
    """Prepare each plan's removal, and apply it once, so that a removal that fails does so before any long work.

    Plans that remove the same share one removal. The report then holds the plans that can be carried out, and the sizes
    of the pruned models.

    Returns:
        The removals, by label.

    Raises:
        OptionError: a plan removes nothing, is for another number of blocks, or has a label that is not allowed; or
            there is no plan.
        SurgeryError: blocks cannot be removed exactly.
        OutputError: there is not enough disk space for the checkpoints, or not enough memory to load one back.
    """
    removals = {}
    prepared: dict[frozenset[Sublayer], tuple[Removal, Size]] = {}
    stack = loaded.stack
    check_plans(plans, len(stack))
    for label, plan in plans.items():
        check_label(label)
        with selection.excusing(label):
            if (gone := removed_by(plan.blocks)) not in prepared:
                removal = prepare(stack, plan.blocks)
                with removal.applied():
                    prepared[gone] = removal, Size.of(stack)
            report.plans[label] = plan
            removals[label], report.sizes[label] = prepared[gone]
    forget_dropped(report, selection)
    if stage:
        kept = sum(report.sizes[label].bytes for label in removals if label not in report.baselines)
        check_room(report, loaded, stage, kept * (1 + len(report.recipe.healers)))
    return removals


def forget_dropped(report: Report, selection: Selection) -> None:
    """Remove the scorers from the report that have failed.

    Raises:
        ModelError: no scorer is left.
    """
    selection.need_any()
    for label in selection.left_out | selection.failed:
        report.importance.pop(label, None)


def check_room(report: Report, loaded: Loaded, stage: Path, need: int) -> None:
    """Refuse to write checkpoints if there is not enough disk space, or not enough memory to load one back.

    Args:
        report: The report of the run.
        loaded: The model.
        stage: The directory to write to.
        need: The size of all checkpoints in bytes.

    Raises:
        OutputError: there is not enough disk space or memory.
    """
    if need > (free := shutil.disk_usage(stage).free):
        raise OutputError(f"the checkpoints need {need:,} bytes, and {stage.parent} has {free:,} left")
    if report.recipe.verify:
        check_memory(loaded.model)

"""The commands, from a recipe to results: score -> plan -> prune -> evaluate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from layerimp.cache.unfinished import Unfinished
from layerimp.pipeline.checkpoints import describe_checkpoints, write_checkpoints
from layerimp.pipeline.keeping import prune_to_quality
from layerimp.pipeline.output import output_directory, write_output
from layerimp.pipeline.prepare import prepare
from layerimp.pipeline.pruning import (
    Choice,
    choose,
    heal_pruned,
    measure_costs,
    measure_fidelity,
    prepare_removals,
    prune_by_amount,
)
from layerimp.pipeline.reporting import recorded, results_of
from layerimp.pipeline.resolve import model_anywhere
from layerimp.pipeline.run import Run, StageResults
from layerimp.pipeline.scores import Unit, score_blocks
from layerimp.progress import SILENT, Progress
from layerimp.recipe import Permissions, Recipe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from layerimp.pipeline.prepare import Prepared
    from layerimp.pruner import PrunePlan
    from layerimp.report.document import Results


def run(recipe: Recipe, *, permissions: Permissions | None = None, progress: Progress = SILENT) -> Results:
    """Score a model, prune it by each scorer, and evaluate the intact and the pruned models.

    If quality is measured, the recipe's baselines are measured beside the scorers, but not saved.

    Raises:
        InputError: something in the recipe is wrong. If possible, this is found before any long work.
        LayerimpError: a stage failed; nothing is left under the output's name.
    """
    prepared = prepare("run", recipe, permissions or Permissions(), progress)
    with Unfinished() as unfinished, output_directory(prepared.recipe) as stage:
        started = Run.of(prepared, stage, unfinished)
        stages = prune_by_amount(started) if prepared.recipe.keep is None else prune_to_quality(started)
        models = measure_fidelity(started, write_checkpoints(started, stages.models))
        results = _written(started, measure_costs(started, replace(stages, models=models)))
    if results.output is not None:  # the results are in place before the page is made of them
        from layerimp.report.page import write_page

        write_page(results, Path(results.output))
    return results


def _written(run: Run, stages: StageResults, plans: Mapping[str, PrunePlan] | None = None) -> Results:
    """Build the results, and write them if the run writes an output, with the cards of its checkpoints."""
    results = results_of(run, stages)
    if run.stage is not None:
        describe_checkpoints(run, results)
        write_output(results, recorded(run, plans), run.stage)
    return results


def score_model(
    recipe: Recipe,
    *,
    by: Unit = "block",
    permissions: Permissions | None = None,
    progress: Progress = SILENT,
) -> Results:
    """Score a model without pruning it; see `run`.

    Args:
        recipe: The run.
        by: The units to score: whole blocks, or attention and MLP separately.
        permissions: Which code that came with data may run.
        progress: Where to report progress.
    """
    if by == "sublayer" and recipe.is_recommended:  # which repairs what is removed
        recipe = recipe.in_one_pass
    prepared = prepare("score", recipe, permissions or Permissions(), progress)
    with output_directory(prepared.recipe) as stage:
        started = Run.of(prepared, stage)
        return _written(started, StageResults(score_blocks(started, by)))


def prune_model(
    recipe: Recipe,
    plans: dict[str, PrunePlan] | None = None,
    *,
    permissions: Permissions | None = None,
    progress: Progress = SILENT,
) -> Results:
    """Prune a model into checkpoints, without evaluating it: by given plans, by named blocks, or by scores."""
    prepared = prepare("prune", recipe, permissions or Permissions(), progress, plans)
    with Unfinished() as unfinished, output_directory(prepared.recipe) as stage:
        assert stage is not None
        started = Run.of(prepared, stage, unfinished)
        choice = _choice(started, prepared)
        models = prepare_removals(started, choice)
        healed, failed = heal_pruned(started, models)
        written = write_checkpoints(started, models | healed)
        return _written(started, StageResults(choice.importance, written, failed=failed), prepared.plans)


def _choice(run: Run, prepared: Prepared) -> Choice:
    """Return the plans that were given, or those of the recipe."""
    if prepared.plans is not None:
        _note_other_models(run, prepared.plans)
        return Choice(prepared.plans)
    return choose(run)


def _note_other_models(run: Run, plans: Mapping[str, PrunePlan]) -> None:
    """Report which plans were made for models of other names; such plans are allowed."""
    here = model_anywhere(run.recipe.model)
    for label, plan in plans.items():
        if plan.model not in (None, here):
            run.progress.note(f"the plan {label} was made for {plan.model}, and is applied to {here}")


def evaluate(recipe: Recipe, *, permissions: Permissions | None = None, progress: Progress = SILENT) -> Results:
    """Evaluate a model as it is.

    Raises:
        InputError: something in the recipe is wrong.
        LayerimpError: a stage failed; nothing is left under the output's name.
    """
    prepared = prepare("evaluate", recipe, permissions or Permissions(), progress)
    with output_directory(prepared.recipe) as stage:
        started = Run.of(prepared, stage)
        stages = StageResults(metrics=started.evaluation.of(started.evaluators, "quality"))
        return _written(started, measure_costs(started, stages))

"""score -> plan -> prune -> evaluate: what the commands do, from a recipe to a report."""

from __future__ import annotations

from layerimp.defaults import ORIGINAL
from layerimp.errors import OptionError
from layerimp.pipeline.stages import Job
from layerimp.progress import SILENT, Progress
from layerimp.pruner import Budget, PrunePlan
from layerimp.recipe import Permissions, Recipe
from layerimp.report.data import Report
from layerimp.surgery.removal import pruned


def run(recipe: Recipe, *, permissions: Permissions | None = None, progress: Progress = SILENT) -> Report:
    """Score a model, prune it by each scorer, and evaluate the intact and the pruned models.

    Where an evaluator measures quality, the recipe's baselines are measured beside the scorers, and not saved.

    Raises:
        InputError: something in the recipe is wrong; found before any long work where it can be.
        LayerimpError: a stage failed; nothing is left under the output's name.
    """
    job = Job(recipe, permissions or Permissions(), progress, reads=("calibration", "tasks"))
    with job.staged_output() as stage:
        job.need_calibration()
        evaluators = job.panel.prepared()
        if any(evaluator.kind == "quality" for evaluator in evaluators.values()):
            job.lineup.add_baselines(recipe)
        job.open()
        evaluators = job.panel.fitting(evaluators, job.model)
        report = job.report
        job.accept(job.plans(), stage)
        report.metrics[ORIGINAL] = job.evaluate(evaluators, "quality")
        for label, plan in report.plans.items():
            with pruned(job.model, plan.blocks):
                report.metrics[label] = job.evaluate_pruned(label, evaluators)
                if stage and label not in report.baselines:
                    job.write_checkpoint(label, stage)
        job.evaluate_costs(evaluators)
        if stage:
            report.write(stage)
    return report


def score_model(recipe: Recipe, *, permissions: Permissions | None = None, progress: Progress = SILENT) -> Report:
    """Score a model, no more; see `run`."""
    job = Job(recipe, permissions or Permissions(), progress, reads=("calibration",))
    with job.staged_output() as stage:
        job.need_calibration()
        job.open()
        job.importance()
        if stage:
            job.report.write(stage)
    return job.report


def prune_model(
    recipe: Recipe,
    plans: dict[str, PrunePlan] | None = None,
    *,
    permissions: Permissions | None = None,
    progress: Progress = SILENT,
) -> Report:
    """Prune a model into checkpoints, without evaluating it: by given plans, by named blocks, or by scores."""
    if recipe.output is None:
        raise OptionError("prune writes a checkpoint: name a directory with --output")
    by_score = plans is None and (recipe.ratio is not None or not recipe.blocks)
    job = Job(recipe, permissions or Permissions(), progress, reads=("calibration",) if by_score else ())
    with job.staged_output() as stage:
        assert stage is not None
        if by_score:
            job.need_calibration()
        job.open()
        if plans is None and not by_score:
            budget = Budget.of(len(job.stack), blocks=recipe.blocks, protect=recipe.protect)
            named = PrunePlan(num_blocks=len(job.stack), blocks=list(budget.forced), reason="named by the user")
            plans = {"blocks": named}
        plans = job.plans() if plans is None else plans
        if not plans:
            raise OptionError("there is no plan in the file")
        job.accept(plans, stage)
        for label, plan in job.report.plans.items():
            with pruned(job.model, plan.blocks):
                job.write_checkpoint(label, stage)
        job.report.write(stage)
    return job.report


def evaluate_model(recipe: Recipe, *, permissions: Permissions | None = None, progress: Progress = SILENT) -> Report:
    """Evaluate a model as it is; see `run`."""
    job = Job(recipe, permissions or Permissions(), progress, reads=("tasks",))
    with job.staged_output() as stage:
        evaluators = job.panel.prepared()
        job.open()
        evaluators = job.panel.fitting(evaluators, job.model)
        report = job.report
        report.metrics[ORIGINAL] = job.evaluate(evaluators, "quality")
        job.evaluate_costs(evaluators)
        if stage:
            report.write(stage)
    return report

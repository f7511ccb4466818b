"""The commands, from a recipe to a report: score -> plan -> prune -> evaluate."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from layerimp._paths import expanded
from layerimp.cache.unfinished import Unfinished
from layerimp.defaults import ORIGINAL
from layerimp.errors import OptionError
from layerimp.evaluation.runner import Evaluation
from layerimp.evaluation.selection import compares, fitting, prepared
from layerimp.models.dtypes import name_of
from layerimp.models.loading import auto_class
from layerimp.models.sizing import shapes_only
from layerimp.pipeline.ahead import budget_of, check_ahead, check_plans
from layerimp.pipeline.file_pruning import prune_files
from layerimp.pipeline.healing import HealerSet, check_text, further_text, heal_pruned, healers_of
from layerimp.pipeline.keeping import prune_to_quality, with_quality
from layerimp.pipeline.output import output_directory, write_checkpoint, write_page
from layerimp.pipeline.removals import plan_removals, prepare_removals
from layerimp.pipeline.resolve import anywhere, made_pruner, model_anywhere, resolve, told
from layerimp.pipeline.scores import Unit, score_blocks
from layerimp.pipeline.stages import Loaded, check_calibration, load_model, read_text
from layerimp.pipeline.streaming import is_run_streamed, is_streamed
from layerimp.progress import SILENT, Progress
from layerimp.pruner import PrunePlan
from layerimp.recipe import Permissions, Recipe, check_kind
from layerimp.report.data import Report, Size
from layerimp.scoring.selection import Selection
from layerimp.steps import removed_by

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from transformers import PreTrainedModel

    from layerimp.calibration.sampling import CalibrationSet
    from layerimp.evaluator import Evaluator, Metric
    from layerimp.surgery.removal import Removal


def run(recipe: Recipe, *, permissions: Permissions | None = None, progress: Progress = SILENT) -> Report:
    """Score a model, prune it by each scorer, and evaluate the intact and the pruned models.

    If quality is measured, the recipe's baselines are measured beside the scorers, but not saved.

    Raises:
        InputError: something in the recipe is wrong. If possible, this is found before any long work.
        LayerimpError: a stage failed; nothing is left under the output's name.
    """
    check_kind(recipe, Recipe)
    allowed, lenient = permissions or Permissions(), recipe.tasks is None
    recipe, selection = _begun(recipe, progress, "calibration", "tasks", may_stream=True)
    check_ahead(recipe.model, allowed, partial(budget_of, recipe))
    with Unfinished() as unfinished, output_directory(recipe) as stage:
        trained_on = check_calibration(recipe, allowed, progress)
        evaluators = prepared(recipe, allowed, progress)
        made = healers_of(recipe.healers, recipe.heal_text)
        if compares(recipe, evaluators):
            selection.add_baselines(recipe)
        loaded = load_model(recipe, allowed, progress, streamed=is_run_streamed(recipe, evaluators, progress))
        report = _report(recipe, loaded, selection)
        evaluators = fitting(evaluators, loaded.model, progress, lenient=lenient, failed=report.failed)
        drawn = read_text(report, loaded, trained_on, progress)
        if recipe.keep is not None:
            drawn, evaluators = with_quality(report, loaded, drawn, evaluators, progress)
        healers = HealerSet(made, further_text(recipe, loaded, drawn, allowed, progress) if made else None, unfinished)
        if made:
            check_text(recipe, evaluators, drawn, healers.further)
        evaluation = Evaluation(loaded.model, loaded.tokenizer, progress, report.failed)
        if loaded.stack.streamed:
            plans = plan_removals(report, loaded, drawn, selection, progress)
            models = prune_files(report, loaded, plans, selection, stage, progress, command="run")
            report.metrics = {label: [] for label in (ORIGINAL, *models)}
            _evaluate_costs(report, evaluation.beside(shapes_only(loaded.model)), evaluators, {}, models)
        else:
            prune = _prune_by_amount if recipe.keep is None else prune_to_quality
            removals, healed = prune(report, loaded, drawn, selection, healers, evaluation, evaluators, stage, progress)
            _evaluate_costs(report, evaluation, evaluators, removals, healed)
        if stage:
            report.write(stage)
    if recipe.output:  # the results are in place before the page is made of them
        write_page(report, selection, expanded(recipe.output).absolute())
    return report.placed()


def _prune_by_amount(
    report: Report,
    loaded: Loaded,
    drawn: CalibrationSet,
    selection: Selection,
    healers: HealerSet,
    evaluation: Evaluation,
    evaluators: dict[str, Evaluator],
    stage: Path | None,
    progress: Progress,
) -> tuple[dict[str, Removal], dict[str, PreTrainedModel]]:
    """Remove the recipe's amount by each scorer, and heal each pruned model by each healer; see `prune_to_quality`."""
    plans = plan_removals(report, loaded, drawn, selection, progress)
    removals = prepare_removals(report, loaded, plans, selection, stage)
    different = len({removed_by(removal.gone) for removal in removals.values()})
    evaluation.announce(evaluators, loaded.stack, different * (1 + len(healers.healers)))
    report.metrics[ORIGINAL] = evaluation.of(evaluators, "quality")
    for label, removal in removals.items():
        with removal.applied():
            report.metrics[label] = _quality(report, label, evaluation, evaluators, progress)
            if stage and label not in report.baselines:
                write_checkpoint(loaded.model, loaded.tokenizer, report, label, stage, progress)
    healed = heal_pruned(report, loaded, removals, healers, drawn, progress)
    for label, model in healed.items():
        report.metrics[label] = _quality(report, label, evaluation.beside(model), evaluators, progress)
        if stage and report.healed[label].scorer not in report.baselines:
            write_checkpoint(model, loaded.tokenizer, report, label, stage, progress)
    return removals, healed


def score_model(
    recipe: Recipe,
    *,
    by: Unit = "block",
    permissions: Permissions | None = None,
    progress: Progress = SILENT,
) -> Report:
    """Score a model without pruning it; see `run`.

    Args:
        recipe: The run.
        by: The units to score: blocks (and seams, if the recipe cuts them), or attention and MLP separately.
        permissions: Which code that came with data may run.
        progress: Where to report progress.
    """
    if by == "sublayer" and recipe.cuts == "all":
        raise OptionError("--by sublayer scores what cannot go alone, and contradicts --cuts all")
    allowed = permissions or Permissions()
    recipe, selection = _begun(recipe, progress, "calibration", may_stream=True)
    with output_directory(recipe) as stage:
        trained_on = check_calibration(recipe, allowed, progress)
        loaded = load_model(recipe, allowed, progress, streamed=is_streamed(recipe, progress))
        report = _report(recipe, loaded, selection)
        drawn = read_text(report, loaded, trained_on, progress)
        score_blocks(report, loaded.stack, drawn, selection, progress, by=by)
        if stage:
            report.write(stage)
    return report.placed()


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
    if recipe.keep is not None:
        raise OptionError("prune measures nothing that could be kept: give a ratio or a count, or use layerimp run")
    allowed = permissions or Permissions()
    by_score = plans is None and not recipe.names_all
    recipe, selection = _begun(recipe, progress, *(["calibration"] if by_score else []), may_stream=True)
    check_ahead(recipe.model, allowed, partial(budget_of, recipe) if plans is None else partial(check_plans, plans))
    with output_directory(recipe) as stage:
        assert stage is not None
        trained_on = check_calibration(recipe, allowed, progress) if by_score else None
        loaded = load_model(recipe, allowed, progress, streamed=is_streamed(recipe, progress))
        report = _report(recipe, loaded, selection)
        if by_score:
            drawn = read_text(report, loaded, trained_on, progress)
            plans = plan_removals(report, loaded, drawn, selection, progress)
        elif plans is None:
            plans = {"blocks": _named_by_the_user(recipe, len(loaded.stack))}
        _note_other_models(recipe, plans, progress)
        if loaded.stack.streamed:
            prune_files(report, loaded, plans, selection, stage, progress, command="prune")
        else:
            for label, removal in prepare_removals(report, loaded, plans, selection, stage).items():
                with removal.applied():
                    write_checkpoint(loaded.model, loaded.tokenizer, report, label, stage, progress, command="prune")
        report.write(stage)
    return report.placed()


def evaluate(recipe: Recipe, *, permissions: Permissions | None = None, progress: Progress = SILENT) -> Report:
    """Evaluate a model as it is.

    Raises:
        InputError: something in the recipe is wrong.
        LayerimpError: a stage failed; nothing is left under the output's name.
    """
    check_kind(recipe, Recipe)
    allowed, lenient = permissions or Permissions(), recipe.tasks is None
    recipe, selection = _begun(recipe, progress, "tasks")
    with output_directory(recipe) as stage:
        evaluators = prepared(recipe, allowed, progress)
        loaded = load_model(recipe, allowed, progress)
        report = _report(recipe, loaded, selection)
        evaluators = fitting(evaluators, loaded.model, progress, lenient=lenient, failed=report.failed)
        name = report.intact_name
        evaluation = Evaluation(loaded.model, loaded.tokenizer, progress, report.failed, intact_name=name)
        evaluation.announce(evaluators, loaded.stack)
        report.metrics[ORIGINAL] = evaluation.of(evaluators, "quality")
        _evaluate_costs(report, evaluation, evaluators, {}, {})
        if stage:
            report.write(stage)
    return report.placed()


def _begun(asked: Recipe, progress: Progress, *reads: str, may_stream: bool = False) -> tuple[Recipe, Selection]:
    """The recipe, resolved, and its scorers; what is used by default is said, and a wrong option found."""
    recipe = resolve(asked)
    healers_of(recipe.healers, recipe.heal_text)
    if (recipe.stream or recipe.scratch is not None) and not may_stream:
        raise OptionError("only layerimp score, prune and run read a model block by block; leave out stream")
    if by_default := told(asked, recipe, reads):
        progress.note(by_default)
    made_pruner(recipe.pruner, recipe.cuts)
    return recipe, Selection.of(recipe, progress)


def _report(recipe: Recipe, loaded: Loaded, selection: Selection) -> Report:
    """Begin the report of a run that has loaded its model."""
    settled = anywhere(recipe)
    report = Report(
        recipe,
        len(loaded.stack),
        auto_class(loaded.model.config),
        sizes={ORIGINAL: Size.of(loaded.stack)},
        baselines=selection.baselines,
        left_out=selection.left_out,
        failed=selection.failed,
    )
    report.resolved = {"model": settled.model, "dtype": name_of(loaded.model.dtype), "tasks": list(settled.tasks or ())}
    report.resolved |= {name: str(path) for name in ("task_path", "data_dir") if (path := getattr(settled, name))}
    return report


def _named_by_the_user(recipe: Recipe, num_blocks: int) -> PrunePlan:
    model, blocks = model_anywhere(recipe.model), list(budget_of(recipe, num_blocks).forced)
    return PrunePlan(num_blocks=num_blocks, blocks=blocks, reason="named by the user", model=model)


def _note_other_models(recipe: Recipe, plans: Mapping[str, PrunePlan], progress: Progress) -> None:
    """Report which plans were made for models of other names; such plans are allowed."""
    here = model_anywhere(recipe.model)
    for label, plan in plans.items():
        if plan.model not in (None, here):
            progress.note(f"the plan {label} was made for {plan.model}, and is applied to {here}")


def _quality(
    report: Report, label: str, evaluation: Evaluation, evaluators: dict[str, Evaluator], progress: Progress
) -> list[Metric]:
    """Measure the quality of the model, which is pruned by the plan under `label`; equal models are measured once."""
    for other in report.metrics:
        if other != ORIGINAL and report.metrics[other] and report.same_model(label, other):
            progress.note(f"{label} removes the same as {other}, whose metrics stand for both")
            return report.metrics[other]
    return evaluation.of(evaluators, "quality", label)


def _evaluate_costs(
    report: Report,
    evaluation: Evaluation,
    evaluators: dict[str, Evaluator],
    removals: Mapping[str, Removal],
    others: Mapping[str, PreTrainedModel],
) -> None:
    """Measure the costs of all models one right after the other, so that the machine's load is about the same.

    Args:
        report: Receives the costs.
        evaluation: Measures the intact model.
        evaluators: The evaluators, by label.
        removals: What is removed from the intact model, by label.
        others: Models beside the intact one, by label.
    """
    report.footprint[ORIGINAL] = evaluation.of(evaluators, "cost")
    for label, removal in removals.items():
        with removal.applied():
            report.footprint[label] = evaluation.of(evaluators, "cost", label)
    for label, model in others.items():
        report.footprint[label] = evaluation.beside(model).of(evaluators, "cost", label)

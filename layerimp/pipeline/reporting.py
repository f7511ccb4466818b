"""The results of a run: those of a grid with one model, one amount, and one scoring by each scorer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from layerimp._paths import expanded, last_name
from layerimp._version import versions
from layerimp.defaults import ALL, RANDOM
from layerimp.evaluation.selection import data_files
from layerimp.indices import named
from layerimp.metric import by_key
from layerimp.pipeline.resolve import anywhere
from layerimp.recipe import CalibrationSpec, ComponentSpec, Recipe
from layerimp.report.build import ONE_DRAW, model_results, scored
from layerimp.report.document import Failure, Results
from layerimp.report.results.comparison import Design
from layerimp.report.results.data import distinct
from layerimp.report.results.models import PLAN, PrunedModel, ReachedTarget, Target
from layerimp.report.rows import Left, Measurements, Pruned
from layerimp.report.statistics import by_task, costs
from layerimp.report.words import amount, asked

if TYPE_CHECKING:
    from layerimp.pipeline.run import Run, StageResults
    from layerimp.pruner import PrunePlan
    from layerimp.report.results.comparison import ModelResults
    from layerimp.report.results.models import Amount
    from layerimp.report.results.scores import Scored
    from layerimp.scorer import Importance


def results_of(run: Run, stages: StageResults) -> Results:
    """Build the results of a run, whose output directory need not have its final name yet."""
    name, selection = last_name(run.resolved.model), run.selection
    measurements = _measurements(run, stages)
    design = _design(run, name, measurements)
    model = model_results(design, name, measurements)
    # An evaluator and a scorer may have the same label.
    failed = [pair for errors in (run.evaluation.failed, selection.failed, stages.failed) for pair in errors.items()]
    return Results(
        request=run.resolved.model_dump(mode="json"),
        design=design,
        models={name: model},
        cells={},
        failures=[Failure(what=what, error=error) for what, error in sorted(failed)],
        left_out=dict(selection.left_out),
        seconds=0.0,
        versions=[versions()],
        notes=list(_notes(run, design, model)),
        data_files=distinct(data_files(run.evaluators)),
        output=None if run.resolved.output is None else str(expanded(run.resolved.output).absolute()),
    )


def recorded(run: Run, plans: Mapping[str, PrunePlan] | None = None) -> Recipe:
    """Return the recipe that repeats a run from any directory; `all` becomes the scorers that took part.

    Args:
        run: The run.
        plans: The plans that were given, if any. The blocks of a single plan become those of the recipe; no recipe
            names those of several.
    """
    recipe, selection = anywhere(run.recipe), run.selection
    if ALL in recipe.scorers:
        scorers = {label: spec for label, spec in selection.specs.items() if label not in selection.baselines}
        recipe = recipe.model_copy(update={"scorers": scorers})
    if plans is not None and len(plans) == 1:
        (plan,) = plans.values()
        recipe = recipe.model_copy(update={"blocks": tuple(plan.blocks)})
    return recipe


def _design(run: Run, name: str, known: Measurements) -> Design:
    recipe = _settled(run)
    return Design(
        models={name: recipe},
        measured={name: list(dict.fromkeys(task for task, _ in known.intact))},
        scorers={label: run.selection.spec_of(label) or ComponentSpec(name=label) for label in known.scored},
        blind=[label for label in known.scored if label in run.selection.blind],
        baselines=[label for label in known.scored if label in recipe.baselines],
        added=[label for label in run.selection.baselines if label in known.scored],
        pruners={recipe.pruner.name: recipe.pruner},
        healers=recipe.healers,
        amounts=list(dict.fromkeys(amount for _, amount, _ in known.left)),
        repeats=1,
        seed=recipe.seed,
        protect=list(recipe.protect),
        limit=recipe.limit,
        limits=dict(recipe.limits),
        num_fewshot=recipe.num_fewshot,
    )


def _settled(run: Run) -> Recipe:
    """Return the recipe in the user's words, completed with the values that the run settled."""
    recipe = run.resolved.model_copy(update={"dtype": run.recipe.dtype})
    if run.drawn is None:
        return recipe
    text = anywhere(run.recipe).calibration.model_dump(mode="json")
    drawn = CalibrationSpec.model_validate(text | {"samples": run.drawn.description.rows})
    return recipe.model_copy(update={"calibration": drawn})


def _measurements(run: Run, stages: StageResults) -> Measurements:
    importance = {label: scores for label, scores in stages.importance.items() if run.selection.spec_of(label)}
    reached_values = [value for model in stages.models.values() for value in model.reached]
    return Measurements(
        num_blocks=len(run.loaded.stack),
        size=run.size,
        intact=by_key(stages.metrics),
        scored={label: _scored(scores, blind=label in run.selection.blind) for label, scores in importance.items()},
        left=_left(run, stages),
        footprint=stages.footprint,
        targets={value.target.quantity: Target.of(value) for value in reached_values},
        loader=run.loader,
        calibration=None if run.drawn is None else run.drawn.description,
        search=stages.search,
    )


def _scored(importance: Importance, *, blind: bool) -> Scored:
    by_block = dict(zip(importance.blocks, importance.scores, strict=True))
    cost = 0.0 if blind else None
    return scored([by_block], cost, importance.columns, importance.notes, importance.spans)


def _left(run: Run, stages: StageResults) -> Left:
    """Return each pruned model, by the label of its pruner, the amount and its contender."""
    amount, output = _amount(run.recipe), expanded(run.resolved.output or "").absolute()
    intact, left = by_key(stages.metrics), {}
    for model in sorted(stages.models.values(), key=lambda model: bool(model.contender.healer)):
        metrics = by_key(model.metrics)
        described = PrunedModel(
            draw=0,
            plan=model.plan,
            size=model.size,
            metrics=by_task(metrics.values(), intact),
            footprint=costs(model.footprint),
            fidelity=model.fidelity,
            healing=model.healing,
            targets={value.target.quantity: ReachedTarget.of(value) for value in model.standing},
            checkpoint=None if model.checkpoint is None else str(output / model.checkpoint),
        )
        left[model.plan.pruner or "", amount, model.contender] = [Pruned(described, metrics)]
    return left


def _amount(recipe: Recipe) -> Amount:
    """Return what the run was asked to remove."""
    if recipe.keep is not None:
        return f"keep={'agreement=' * (recipe.keep_of == 'agreement')}{recipe.keep:g}"
    if recipe.targets:
        return ", ".join(f"{quantity}={value}" for quantity, value in recipe.targets.items())
    if recipe.count is not None:
        return recipe.count
    if recipe.ratio is not None:
        return float(recipe.ratio)
    return f"blocks={','.join(map(str, recipe.blocks))}" if recipe.blocks else PLAN


def _notes(run: Run, design: Design, model: ModelResults) -> Iterator[str]:
    """Yield notes on the run for a reader of the numbers, in addition to notes on the numbers themselves."""
    if model.rows:
        yield ONE_DRAW
    if run.resolved.blocks:
        yield f"removed on request, regardless of scores: {named(run.resolved.blocks)}"
    if model.search is not None and not model.search.held_out:
        yield "all figures are measured on the documents that confirm the result, which the search did not use"
    for quantity, limit in model.targets.items():
        values = ", ".join(
            f"{each.label} {amount(pruned.targets[quantity].value)}"
            for each in model.removals
            for pruned in each.models
            if not each.healer and quantity in pruned.targets
        )
        yield f"no more blocks are removed than necessary for {asked(quantity, limit)}; reached: {values}"
    if RANDOM in design.scorers and model.rows:
        yield f"{RANDOM} is a single draw of blocks; another draw may cost far more or far less"
    if len({tuple(row.counts) for row in model.rows}) > 1:
        yield "models that lack different numbers of blocks are not compared with each other"
    yield from (f"the scorer {label} is left out: {why}" for label, why in run.selection.left_out.items())

"""Builds the results of a run from its report: a grid with one model, one amount, and one scoring by each scorer."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from layerimp._paths import last_name
from layerimp.defaults import ORIGINAL, RANDOM
from layerimp.recipe import CalibrationSpec, ComponentSpec, Recipe
from layerimp.report.build import ONE_DRAW, Measurements, model_results, scored
from layerimp.report.contenders import Contender
from layerimp.report.conversion import repaired
from layerimp.report.document import Failure, Results
from layerimp.report.results.comparison import Design, ModelResults
from layerimp.report.results.models import Amount
from layerimp.report.results.scores import Scored
from layerimp.report.results.search import MostBlocks, QualitySearch, TriedModel
from layerimp.report.rows import Pruned
from layerimp.report.run_data import RunData
from layerimp.report.statistics.parts import share
from layerimp.report.targets import asked, got, reached, target
from layerimp.report.versions import versions
from layerimp.steps import named

if TYPE_CHECKING:
    from layerimp.metric import Metric
    from layerimp.report.search import Search
    from layerimp.report.statistics.retained import Key
    from layerimp.scorer import Importance


def run_results(report: RunData) -> Results:
    """Build the results of a run."""
    recipe, name = _settled(report), last_name(report.recipe.model)
    intact = _by_key(report.metrics.get(ORIGINAL, ()))
    left = {(pruner, _amount(report), contender): [model] for pruner, contender, model in _pruned(report)}
    design = Design(
        models={name: recipe},
        measured={name: list(dict.fromkeys(task for task, _ in intact))},
        scorers={label: report.scorers.get(label, ComponentSpec(name=label)) for label in report.importance},
        blind=[label for label in report.importance if label in report.blind],
        baselines=[label for label in report.importance if label in recipe.baselines],
        added=[label for label in report.baselines if label in report.importance],
        pruners={recipe.pruner.name: recipe.pruner},
        healers=recipe.healers,
        amounts=list(dict.fromkeys(amount for _, amount, _ in left)),
        repeats=1,
        seed=recipe.seed,
        cuts=recipe.cuts,
        protect=list(recipe.protect),
        limit=recipe.limit,
        num_fewshot=recipe.num_fewshot,
    )
    measurements = Measurements(
        num_blocks=report.num_blocks,
        size=report.sizes.get(ORIGINAL),
        intact=intact,
        scored={
            label: _scored(importance, 0.0 if label in report.blind else None)
            for label, importance in report.importance.items()
        },
        left=left,
        footprint=report.footprint.get(ORIGINAL, ()),
        targets={value.target.quantity: target(value) for each in report.reached.values() for value in each},
        loader=report.loader,
        calibration=report.calibration,
        search=None if report.search is None else _search(report.search),
    )
    model = model_results(design, name, measurements)
    return Results(
        request=report.recipe.model_dump(mode="json"),
        design=design,
        models={name: model},
        cells={},
        failures=[Failure(what=what, error=error) for what, error in sorted(report.failed.items())],
        left_out=dict(report.left_out),
        seconds=0.0,
        versions=[versions()],
        notes=list(_notes(report, design, model)),
        output=None if report.output is None else str(report.output),
    )


def _settled(report: RunData) -> Recipe:
    """Return the recipe, completed with the values that the run resolved."""
    text, dtype = report.resolved.get("calibration"), report.resolved.get("dtype")
    recipe = report.recipe.model_copy(update={"dtype": dtype} if dtype else {})
    if text is None or report.calibration is None:
        return recipe
    drawn = CalibrationSpec.model_validate(text | {"samples": report.calibration["rows"]})
    return recipe.model_copy(update={"calibration": drawn})


def _by_key(metrics: Collection[Metric]) -> dict[Key, Metric]:
    return {(metric.task, metric.name): metric for metric in metrics}


def _scored(importance: Importance, cost: float | None) -> Scored:
    by_step = dict(zip(importance.blocks, importance.scores, strict=True))
    return scored([by_step], cost, importance.columns, importance.notes, importance.spans)


def _amount(report: RunData) -> Amount:
    """Return what the run was asked to remove."""
    recipe = report.recipe
    if recipe.keep is not None:
        return f"keep={recipe.keep:g}"
    if recipe.targets:
        return ", ".join(f"{quantity}={value}" for quantity, value in recipe.targets.items())
    if recipe.count is not None:
        return recipe.count
    if (ratio := report.resolved.get("ratio", recipe.ratio)) is not None:
        return float(ratio)
    return f"blocks={','.join(map(str, recipe.blocks))}" if recipe.blocks else "plan"


def _pruned(report: RunData) -> Iterator[tuple[str, Contender, Pruned]]:
    """Yield each pruned model, with the label of its pruner and its contender."""
    for label in (*report.plans, *report.healed):
        contender, done = Contender(label), None
        if label in report.healed:
            healing = report.healed[label]
            contender = Contender(healing.scorer, healing.healer)
            done = repaired(healing.repairs, healing.loss, healing.accuracy, healing.recovered)
        plan, checkpoint = report.plan_of(label), report.checkpoints.get(label)
        yield (
            plan.pruner or "",
            contender,
            Pruned(
                draw=0,
                blocks=tuple(plan.blocks),
                size=report.sizes.get(label),
                metrics=_by_key(report.metrics.get(label, ())),
                healing=done,
                footprint=report.footprint.get(label, ()),
                targets={value.target.quantity: reached(value) for value in report.standing(label)},
                checkpoint=None if checkpoint is None else str(checkpoint),
            ),
        )


def _search(search: Search) -> QualitySearch:
    return QualitySearch(
        keep=search.keep,
        measured_on=list(search.measured_on),
        held_out=search.held_out,
        order=search.order,
        removable={
            label: MostBlocks(
                count=most.count,
                blocks=[] if most.plan is None else most.plan.blocks,
                retained=share(None if most.last is None else most.last.searched),
                confirmed=share(None if most.last is None else most.last.confirmed),
                before_confirmation=most.first,
                tried=[
                    TriedModel(count=each.count, retained=share(each.searched), confirmed=share(each.confirmed))
                    for each in most.tried
                ],
            )
            for label, most in search.removable.items()
        },
    )


def _notes(report: RunData, design: Design, model: ModelResults) -> Iterator[str]:
    """Yield notes on the run for a reader of the numbers, in addition to notes on the numbers themselves."""
    recipe = report.recipe
    if model.rows:
        yield ONE_DRAW
    if recipe.blocks:
        yield f"removed on request, regardless of scores: {named(recipe.blocks)}"
    if report.search is not None and not report.search.held_out:
        yield "all figures are measured on the documents that confirm the result, which the search did not use"
    for quantity, limit in model.targets.items():
        values = ", ".join(
            f"{each.label} {got(pruned.targets[quantity])}"
            for each in model.removals
            for pruned in each.models
            if not each.healer and quantity in pruned.targets
        )
        yield f"no more blocks are removed than necessary for {asked(quantity, limit)}; reached: {values}"
    if RANDOM in design.scorers and model.rows:
        yield f"{RANDOM} is a single draw of blocks; another draw may cost far more or far less"
    if len({tuple(row.counts) for row in model.rows}) > 1:
        yield "models that lack different numbers of blocks are not compared with each other"
    yield from (f"the scorer {label} is left out: {why}" for label, why in report.left_out.items())

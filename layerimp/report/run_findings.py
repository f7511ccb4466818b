"""Converts the report of a run to the findings of a comparison: one model, and one scoring by each scorer.

The number of blocks that a scorer's plan removes takes the place of the ratio, so that only scorers that remove equally
many blocks are compared.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from layerimp._paths import last_name
from layerimp.defaults import ORIGINAL, RANDOM
from layerimp.recipe import CalibrationSpec, ComponentSpec, Recipe
from layerimp.report.conversion import repaired
from layerimp.report.findings import Contender, Design, Key, Pruned, Scored
from layerimp.report.model_findings import ONE_DRAW, common_steps, model_findings
from layerimp.report.results import Findings
from layerimp.report.targets import asked, got
from layerimp.report.versions import versions
from layerimp.steps import named

if TYPE_CHECKING:
    from layerimp.evaluator import Metric
    from layerimp.report.data import Report


def run_findings(report: Report, scorers: Mapping[str, ComponentSpec], blind: Collection[str]) -> Findings:
    """Convert the report of a run to findings.

    Args:
        report: The report.
        scorers: The scorers of the run, including baselines, by label.
        blind: The labels of scorers that do not look at the model, so that no text changes their scores.
    """
    recipe = _settled(report)
    label, pruner = last_name(recipe.model), recipe.pruner.name
    intact = _by_key(report.metrics.get(ORIGINAL, ()))
    known = {scorer: report.importance[scorer] for scorer in scorers if scorer in report.importance}
    steps = common_steps(one.blocks for one in known.values())
    scored = {}
    for scorer, one in known.items():
        by_step = dict(zip(one.blocks, one.scores, strict=True))
        scored[scorer] = Scored.of(steps, [[by_step[step] for step in steps]], 0.0 if scorer in blind else None)
    left: dict[tuple[str, float, Contender], list[Pruned]] = {
        (pruner, len(found.blocks), one): [found]
        for one, found in sorted(_pruned(report), key=lambda item: len(item[1].blocks))
        if one.scorer in known
    }
    design = Design(
        models={label: recipe},
        measured={label: list(dict.fromkeys(task for task, _ in intact))},
        scorers={scorer: scorers[scorer] for scorer in known},
        blind=[scorer for scorer in known if scorer in blind],
        baselines=[scorer for scorer in known if scorer in recipe.baselines],
        pruners={pruner: recipe.pruner},
        healers=recipe.healers,
        ratios=list(dict.fromkeys(count for _, count, _ in left)),
        repeats=1,
        seed=recipe.seed,
        cuts=recipe.cuts,
        protect=recipe.protect,
        limit=recipe.limit,
        num_fewshot=recipe.num_fewshot,
        asked=recipe.model_dump(mode="json"),
    )
    model = model_findings(
        design,
        label,
        num_blocks=report.num_blocks,
        size=report.sizes[ORIGINAL],
        intact=intact,
        scored=scored,
        left=left,
    )
    model = replace(model, answer=_answer(report))
    return Findings(
        design=design,
        models={label: model},
        cells={},
        failures=sorted(report.failed.items()),
        seconds=0.0,
        versions=[versions()],
        notes=[ONE_DRAW, *_notes(report, design), *model.notes],
    )


def _settled(report: Report) -> Recipe:
    """Return the recipe, completed with the values that the run resolved."""
    text, dtype = report.resolved.get("calibration"), report.resolved.get("dtype")
    recipe = report.recipe.model_copy(update={"dtype": dtype} if dtype else {})
    if text is None or report.calibration is None:
        return recipe
    drawn = CalibrationSpec.model_validate(text | {"samples": report.calibration["rows"]})
    return recipe.model_copy(update={"calibration": drawn})


def _by_key(metrics: Collection[Metric]) -> dict[Key, Metric]:
    return {(metric.task, metric.name): metric for metric in metrics}


def _pruned(report: Report) -> Iterator[tuple[Contender, Pruned]]:
    """Yield each contender with its pruned model."""
    for label in (*report.plans, *report.healed):
        contender, done = Contender(label), None
        if label in report.healed:
            one = report.healed[label]
            contender = Contender(one.scorer, one.healer)
            done = repaired(one.repairs, one.loss, one.accuracy, one.recovered)
        gone, size = tuple(report.plan_of(label).blocks), report.sizes.get(label)
        yield contender, Pruned(0, gone, size, _by_key(report.metrics.get(label, ())), done)


def _answer(report: Report) -> str:
    """Say how many blocks may be removed, if there was a search; else empty."""
    if report.search is None:
        return ""
    by_count: dict[int, list[str]] = {}
    for label in report.search.order:
        by_count.setdefault(report.search.removable[label].count, []).append(label)
    told = "; ".join(f"{count} by {', '.join(labels)}" for count, labels in by_count.items())
    kept = f"{report.search.keep * 100:.4g}%"
    return f"So many of {report.num_blocks} blocks may be removed while at least {kept} is retained: {told}."


def _notes(report: Report, design: Design) -> Iterator[str]:
    """Yield notes on the run for a reader of the numbers, in addition to notes on the numbers themselves."""
    recipe = report.recipe
    if recipe.blocks:
        yield f"removed on request, regardless of scores: {named(recipe.blocks)}"
    if report.search is not None and not report.search.held_out:
        yield "all figures are measured on the documents that confirm the result, which the search did not use"
    for n in range(len(recipe.targets)):
        stands = {label: report.reached[label][n] for label in report.plans if label in report.reached}
        if stands:
            told = ", ".join(f"{label} {got(report.standing(label)[n])}" for label in stands)
            limit = asked(next(iter(stands.values())))
            yield f"no more blocks are removed than necessary for {limit}; reached: {told}"
    if RANDOM in design.scorers:
        yield f"{RANDOM} is a single draw of blocks; another draw may cost far more or far less"
    if len(design.ratios) > 1:
        yield "scorers that remove different numbers of blocks are not compared with each other"
    yield from (f"the scorer {label} is left out: {why}" for label, why in report.left_out.items())

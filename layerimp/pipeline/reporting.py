"""The report of a run, built once from what its stages returned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from layerimp._paths import expanded
from layerimp.defaults import ALL, ORIGINAL
from layerimp.models.loading import auto_class
from layerimp.pipeline.resolve import anywhere
from layerimp.report.data import Report
from layerimp.scoring.selection import is_blind

if TYPE_CHECKING:
    from layerimp.pipeline.run import Results, Run


def report_of(run: Run, results: Results) -> Report:
    """Build the report of a run, whose output directory need not have its final name yet."""
    pruned = {label: model for label, model in results.models.items() if model.healing is None}
    output = None if run.asked.output is None else expanded(run.asked.output).absolute()
    return Report(
        run.asked,
        len(run.loaded.stack),
        auto_class(run.loaded.model.config),
        calibration=None if run.drawn is None else run.drawn.description,
        sizes={ORIGINAL: run.size} | {label: model.size for label, model in results.models.items()},
        importance={label: scores for label, scores in results.importance.items() if label in run.selection.specs},
        plans={label: model.plan for label, model in pruned.items()},
        reached={label: list(model.reached) for label, model in pruned.items() if model.reached},
        healed={label: model.healing for label, model in results.models.items() if model.healing is not None},
        checkpoints={label: output / path for label, path in results.checkpoints.items()} if output else {},
        metrics=dict(results.metrics),
        footprint=dict(results.footprint),
        search=results.search,
        resolved=_recorded(run),
        scorers=dict(run.selection.specs),
        blind=[label for label, spec in run.selection.specs.items() if is_blind(spec.name)],
        baselines=list(run.selection.baselines),
        left_out=dict(run.selection.left_out),
        failed={**run.evaluation.failed, **run.selection.failed, **results.failed},
        output=output,
    )


def _recorded(run: Run) -> dict[str, Any]:
    """Return the recipe that repeats a run from any directory; `all` becomes the scorers that took part."""
    recipe, selection = anywhere(run.recipe), run.selection
    if ALL in recipe.scorers:
        scorers = {label: spec for label, spec in selection.specs.items() if label not in selection.baselines}
        recipe = recipe.model_copy(update={"scorers": scorers})
    return recipe.model_dump(mode="json", exclude={"overwrite"})

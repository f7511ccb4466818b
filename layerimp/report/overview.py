"""A run as one table: a row for each model, or for each scored step if nothing was removed or measured."""

from __future__ import annotations

from collections.abc import Mapping

from layerimp._table import Column, Table
from layerimp.defaults import ORIGINAL
from layerimp.models.origin import model_name
from layerimp.report import cuts
from layerimp.report.results.comparison import Compared, ModelResults
from layerimp.report.results.measures import Cost, Measured
from layerimp.steps import Step, sublayers_of


def overview(results: Compared) -> Table:
    """Return the table of the models (the intact one first) with sizes and metrics, or else the table of the scores."""
    model = results.model
    name = results.design.models[model.label].model
    title = f"{name}, {model.num_blocks} blocks"
    if model.size is None and not model.metrics:
        return Table(_scores(model), title)
    by_label = {removal.label: removal for removal in model.removals}
    removals = [by_label[label] for label in model.order]
    columns = [Column("model", [ORIGINAL, *model.order] if removals else [model_name(name)])]
    if removals:
        columns.append(Column("removed", ["", *(cuts.ranges(removal.models[0].blocks) for removal in removals)]))
    if model.size is not None:
        sizes = [model.size, *(removal.models[0].size for removal in removals)]
        columns.append(Column("parameters", [None if size is None else size.parameters for size in sizes]))
    if any(removal.retained for removal in removals):
        worst = [None if removal.retained is None else removal.retained.worst for removal in removals]
        columns.append(
            Column("retained", [None, *(None if share is None else share.mean for share in worst)], form=".1%")
        )
    pruned = [removal.models[0] for removal in removals]
    tables = [model.metrics, *(smaller.metrics for smaller in pruned)]
    for task, metrics in model.metrics.items():
        columns += [_measured(f"{task} {name}", [each.get(task, {}).get(name) for each in tables]) for name in metrics]
    costs = [model.footprint, *(smaller.footprint for smaller in pruned)]
    columns += [_measured(cost, [each.get(cost) for each in costs]) for cost in model.footprint]
    return Table(columns, title)


def _measured(name: str, values: list[Measured | None] | list[Cost | None]) -> Column:
    errors = [None if value is None else value.stderr for value in values]
    return Column(name, [None if value is None else value.value for value in values], errors if any(errors) else ())


def _scores(model: ModelResults) -> list[Column]:
    """Return the scores of all scorers, with a row for each step that any of them scored."""
    by_scorer: dict[str, Mapping[Step, float]] = {
        label: dict(zip(scored.steps, scored.scores[0], strict=True)) for label, scored in model.scored.items()
    }
    steps = sorted({step for scores in by_scorer.values() for step in scores}, key=sublayers_of)
    head = "block" if all(isinstance(step, int) for step in steps) else "step"
    columns = [Column(label, [scores.get(step) for step in steps]) for label, scores in by_scorer.items()]
    return [Column(head, steps), *columns]

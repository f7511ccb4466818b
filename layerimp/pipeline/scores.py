"""Scores the units of a model into a report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from layerimp.defaults import ALL
from layerimp.scoring.engine import fill, fill_sublayers, finished
from layerimp.scoring.series import ScoredSeries
from layerimp.steps import candidates, sublayer_units

if TYPE_CHECKING:
    from layerimp.blocks.stack import BlockStack
    from layerimp.calibration.sampling import CalibrationSet
    from layerimp.progress import Progress
    from layerimp.report.data import Report
    from layerimp.scorer import Kind, Scorer
    from layerimp.scoring.selection import Selection
    from layerimp.steps import Step

Unit = Literal["block", "sublayer"]
"""The units to score: whole blocks (and seams, if these may be cut), or attention and MLP separately."""
Series = tuple[list["Step"], list["Step"]]
"""The scored units in two series: blocks and seams, or attentions and MLPs. The second series may be empty."""


def score_blocks(
    report: Report,
    stack: BlockStack,
    drawn: CalibrationSet,
    selection: Selection,
    progress: Progress,
    *,
    by: Unit = "block",
) -> None:
    """Score blocks (and seams, if the recipe cuts them), or with `by` attention and MLP separately, into the report.

    All selected scorers share the sweeps. Scorers that fail leave the selection.
    """
    apart = by == "sublayer"
    kind: Kind | None = "sublayer" if apart else "seam" if report.recipe.cuts == "all" else None
    selection.try_out(stack, next(iter(drawn)), kind)
    steps = sublayer_units((), len(stack)) if apart else candidates((), len(stack), report.recipe.cuts)
    first: dict[str, Scorer] = {}
    second: dict[str, Scorer] = {}
    for label in list(selection.specs):
        with selection.excusing(label):
            one, other = scorers_of(steps, selection, label)
            ScoredSeries("", steps[1], other, kind).check()
            first |= one
            second |= other
    if apart:
        found = fill_sublayers(stack, drawn, first, second, progress=progress)
    else:
        found = fill(stack, drawn, first, seams=second, progress=progress)
    for label, filled in found.items():
        with selection.excusing(label):
            report.importance[label] = finished(label, [filled])
    selection.need_any()
    if ALL in report.recipe.scorers:
        took_part = {label: spec for label, spec in selection.specs.items() if label not in selection.baselines}
        report.resolved["scorers"] = {label: spec.model_dump() for label, spec in took_part.items()}


def scorers_of(steps: Series, selection: Selection, *labels: str) -> tuple[dict[str, Scorer], dict[str, Scorer]]:
    """Make new scorers for both series: those with the given labels, or all."""
    first, second = steps
    return selection.made(len(first), *labels), selection.made(len(second), *labels) if second else {}

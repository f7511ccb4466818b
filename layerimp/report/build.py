"""Builds the results for one model from what was scored, removed and measured: for a grid, and for a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any

from layerimp.report.notes import above_the_intact, collapsed, missing_fidelity, not_as_asked, unknown
from layerimp.report.results.comparison import Design, ModelResults
from layerimp.report.results.contenders import Contender
from layerimp.report.results.models import Amount, PrunedModel, Removal
from layerimp.report.results.rows import Removable, Row
from layerimp.report.results.scores import Agreement, Scored, common_steps
from layerimp.report.rows import Left, Pruned, Rows, counts_of
from layerimp.report.statistics.agreement import mean_tau, self_tau, stability
from layerimp.report.statistics.measures import by_task, costs, flips_by_task, shares
from layerimp.report.statistics.retained import Key, Retained, counting, removable, summed_up, worst_by_repeat
from layerimp.report.statistics.significance import interval
from layerimp.report.tables.numbers import named
from layerimp.steps import Step, removed_by

if TYPE_CHECKING:
    from layerimp.calibration.sampling import Calibration
    from layerimp.metric import Metric
    from layerimp.report.results.models import Size, Target
    from layerimp.report.results.search import QualitySearch

ONE_DRAW = (
    "one draw of calibration text: the comparison is of the models from this draw, and another draw may give others"
)


@dataclass(frozen=True)
class Measurements:
    """One intact model, with everything that was scored, removed and measured.

    Attributes:
        num_blocks: The number of blocks of the intact model.
        size: The size of the intact model; None if nothing is evaluated yet.
        intact: The metrics of the intact model.
        scored: The scores, by label of the scorer.
        left: The pruned models.
        footprint: The costs of the intact model.
        targets: The sizes that were asked for, by quantity.
        loader: The stock class that loads the checkpoints.
        calibration: The text that drove the scoring, if it was one text.
        search: The result of a search.
    """

    num_blocks: int
    size: Size | None
    intact: Mapping[Key, Metric]
    scored: Mapping[str, Scored]
    left: Left
    footprint: Sequence[Metric] = ()
    targets: Mapping[str, Target] = field(default_factory=dict)
    loader: str | None = None
    calibration: Calibration | None = None
    search: QualitySearch | None = None


def scored(
    by_repeat: Sequence[Mapping[Step, float]],
    cost: float | None,
    columns: Mapping[str, Sequence[float]],
    notes: Iterable[str],
    spans: Mapping[Any, Sequence[float]],
) -> Scored:
    """Return the scores of one scorer; see the fields of `Scored`.

    Args:
        by_repeat: The score of each step, by repeat.
        cost: The time of scoring, in bare passes.
        columns: Further numbers of the first repeat, in the order of its steps.
        notes: Notes for a reader.
        spans: The scores of windows in the first repeat, by length.
    """
    steps, order = common_steps(by_repeat), list(by_repeat[0])
    scores = [[known[step] for step in steps] for known in by_repeat]
    places = [order.index(step) for step in steps]
    return Scored(
        steps=steps,
        scores=scores,
        means=[interval(values) for values in zip(*scores, strict=True)],
        tau=self_tau(scores),
        cost=cost,
        columns={name: [values[place] for place in places] for name, values in dict(columns).items()},
        notes=list(notes),
        spans={str(length): list(values) for length, values in spans.items()},
    )


def model_results(design: Design, label: str, known: Measurements) -> ModelResults:
    """Build the results for one model.

    Args:
        design: The design of the comparison.
        label: The label of the model.
        known: What was scored, removed and measured.
    """
    retained = _retained(known)
    rows: list[Row] = []
    for pruner, amount in dict.fromkeys((pruner, amount) for pruner, amount, _ in known.left):
        here = {who: models for (p, a, who), models in known.left.items() if (p, a) == (pruner, amount)}
        kept = {who: retained[pruner, amount, who] for who in here if (pruner, amount, who) in retained}
        rows += _rows(design, pruner, amount, known, here, kept)
    return ModelResults(
        label=label,
        num_blocks=known.num_blocks,
        loader=known.loader,
        size=known.size,
        calibration=known.calibration,
        metrics=by_task(known.intact.values()),
        footprint=costs(known.footprint),
        targets=dict(known.targets),
        scored=dict(known.scored),
        agreements=list(_agreements(known.scored)),
        removals=[_removal(design, key, known, retained.get(key)) for key in known.left],
        rows=rows,
        removables=list(_removable(known.left, retained)),
        search=known.search,
        notes=[
            *(unknown(known.intact, counting(known.intact.values())) if known.size else ()),
            *not_as_asked(known.left),
            *missing_fidelity(known.left),
        ],
    )


def _agreements(scored: Mapping[str, Scored]) -> Iterator[Agreement]:
    """Yield the agreement of each two scorers on the steps that all scored, in both orders."""
    steps = common_steps(scoring.steps for scoring in scored.values())
    scores = {scorer: scoring.on(steps) for scorer, scoring in scored.items()}
    for pair in product(scored, scored):
        if pair[0] != pair[1]:
            yield Agreement(scorers=pair, tau=mean_tau(*(scores[scorer] for scorer in pair)))


def _retained(known: Measurements) -> dict[tuple[str, Amount, Contender], Retained]:
    """Return what is retained, wherever a model of the same pruner and amount was measured."""
    intact = counting(known.intact.values())
    measured = {
        (pruner, amount)
        for (pruner, amount, _), models in known.left.items()
        if known.size is not None and any(model.size for model in models)
    }
    return {
        key: summed_up(intact, [model.metrics for model in models])
        for key, models in known.left.items()
        if key[:2] in measured and known.intact
    }


def _rows(
    design: Design,
    pruner: str,
    amount: Amount,
    known: Measurements,
    here: Mapping[Contender, Sequence[Pruned]],
    kept: Mapping[Contender, Retained],
) -> Iterator[Row]:
    """Yield the rows for one pruner and amount: those of models with equally many blocks removed stand together."""
    for counts in sorted({counts_of(models) for models in here.values()}):
        group = {who.label: models for who, models in here.items() if counts_of(models) == counts}
        if known.size is not None and any(model.size for models in group.values() for model in models):
            yield from Rows(
                design,
                pruner,
                amount,
                known.num_blocks,
                known.size,
                known.intact,
                {who.label: who for who in here},
                group,
                {who.label: each for who, each in kept.items() if who.label in group},
            ).rows()


def _removal(
    design: Design, key: tuple[str, Amount, Contender], known: Measurements, retained: Retained | None
) -> Removal:
    pruner, amount, contender = key
    models, where = known.left[key], f" at {named(amount)}" if len(design.amounts) > 1 else ""
    notes = list(collapsed(contender.label + where, models))
    if retained is not None:
        tables = [model.metrics for model in models]
        notes += above_the_intact(counting(known.intact.values()), contender.label + where, tables, retained)
    return Removal(
        pruner=pruner,
        amount=amount,
        scorer=contender.scorer,
        healer=contender.healer,
        models=[_model(model, known.intact) for model in models],
        stability=None if contender.healer else stability([removed_by(model.blocks) for model in models]),
        retained=None if retained is None else shares(retained),
        flips=flips_by_task(known.intact, [model.metrics for model in models]),
        notes=notes,
    )


def _model(model: Pruned, intact: Mapping[Key, Metric]) -> PrunedModel:
    return PrunedModel(
        draw=model.draw,
        plan=model.plan,
        size=model.size,
        metrics=by_task(model.metrics.values(), intact),
        footprint=costs(model.footprint),
        fidelity=model.fidelity,
        healing=model.healing,
        targets=dict(model.targets),
        checkpoint=model.checkpoint,
    )


def _removable(left: Left, retained: Mapping[tuple[str, Amount, Contender], Retained]) -> Iterator[Removable]:
    """Yield how many blocks may be removed for each contender that was measured at several numbers of blocks."""
    for pruner, contender in dict.fromkeys((pruner, contender) for pruner, _, contender in left):
        curves: dict[int, dict[int, float]] = {}
        for key, models in left.items():
            known = retained.get(key) if (key[0], key[2]) == (pruner, contender) else None
            by_repeat = None if known is None else worst_by_repeat(known)
            for model, share in zip(models, by_repeat or (), strict=False):
                curves.setdefault(model.draw, {})[len(model.blocks)] = share
        measured, levels = removable(list(curves.values()))
        if len(measured) > 1:
            yield Removable(pruner=pruner, label=contender.label, measured=measured, levels=levels)

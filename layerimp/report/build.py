"""Builds the results for one model, of a run or of a grid, from what was scored, removed and measured; with notes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from layerimp.errors import listing
from layerimp.fidelity.record import Fidelity
from layerimp.indices import named
from layerimp.metric import Key, Metric
from layerimp.report.paired_bootstrap import Estimate, difference
from layerimp.report.results.comparison import Design, ModelResults
from layerimp.report.results.models import Removal
from layerimp.report.results.rows import Removable
from layerimp.report.results.scores import Agreement, Scored, common_blocks
from layerimp.report.retained import (
    FEW,
    RetainedDraws,
    counting,
    removable,
    shares,
    summed_up,
    why_nothing,
    worst_by_repeat,
)
from layerimp.report.rows import Left, Measurements, Removed, rows
from layerimp.report.statistics import (
    by_task,
    costs,
    flips_by_task,
    interval,
    mean_tau,
    noise,
    parts_at_floor,
    self_tau,
    stability,
)
from layerimp.report.words import amount_name

ONE_DRAW = (
    "one draw of calibration text: the comparison is of the models from this draw, and another draw may give others"
)


def scored(
    by_repeat: Sequence[Mapping[int, float]],
    cost: float | None,
    columns: Mapping[str, Sequence[float]],
    notes: Iterable[str],
    spans: Mapping[Any, Sequence[float]],
) -> Scored:
    """Return the scores of one scorer; see the fields of `Scored`.

    Args:
        by_repeat: The score of each block, by repeat.
        cost: The time of scoring, in bare passes.
        columns: Further numbers of the first repeat, in the order of its blocks.
        notes: Notes for a reader.
        spans: The scores of windows in the first repeat, by length.
    """
    blocks, order = common_blocks(by_repeat), list(by_repeat[0])
    scores = [[known[block] for block in blocks] for known in by_repeat]
    places = [order.index(block) for block in blocks]
    return Scored(
        blocks=blocks,
        scores=scores,
        means=[interval(values) for values in zip(*scores, strict=True)],
        tau=self_tau(scores),
        cost=cost,
        columns={name: [values[place] for place in places] for name, values in dict(columns).items()},
        notes=list(notes),
        spans={int(length): list(values) for length, values in spans.items()},
    )


def model_results(design: Design, label: str, known: Measurements) -> ModelResults:
    """Build the results for one model.

    Args:
        design: The design of the comparison.
        label: The label of the model.
        known: What was scored, removed and measured.
    """
    retained = _retained(known)
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
        rows=list(rows(design, known, retained)),
        removables=list(_removable(known.left, retained)),
        search=known.search,
        notes=[
            *(unknown(known.intact, counting(known.intact.values())) if known.size else ()),
            *not_as_asked(known.left),
            *missing_fidelity(known.left),
        ],
    )


def _agreements(scored: Mapping[str, Scored]) -> Iterator[Agreement]:
    """Yield the agreement of each two scorers on the blocks that all scored, in both orders."""
    blocks = common_blocks(scoring.blocks for scoring in scored.values())
    scores = {scorer: scoring.on(blocks) for scorer, scoring in scored.items()}
    for pair in product(scored, scored):
        if pair[0] != pair[1]:
            yield Agreement(scorers=pair, tau=mean_tau(*(scores[scorer] for scorer in pair)))


def _retained(known: Measurements) -> dict[Removed, RetainedDraws]:
    """Return what is retained, wherever a model of the same pruner and amount was measured."""
    intact = counting(known.intact.values())
    measured = {key[:2] for key, models in known.left.items() if any(each.model.size for each in models)}
    return {
        key: summed_up(intact, [each.metrics for each in models])
        for key, models in known.left.items()
        if key[:2] in measured and intact
    }


def _removal(design: Design, key: Removed, known: Measurements, retained: RetainedDraws | None) -> Removal:
    pruner, amount, contender = key
    models, where = known.left[key], f" at {amount_name(amount)}" if len(design.amounts) > 1 else ""
    notes = list(collapsed(contender.label + where, [each.model.fidelity for each in models]))
    tables = [each.metrics for each in models]
    if retained is not None:
        notes += above_the_intact(counting(known.intact.values()), contender.label + where, tables, retained)
    return Removal(
        pruner=pruner,
        amount=amount,
        scorer=contender.scorer,
        healer=contender.healer,
        models=[each.model for each in models],
        stability=None if contender.healer else stability([frozenset(each.blocks) for each in models]),
        retained=None if retained is None else shares(retained),
        flips=flips_by_task(known.intact, tables),
        notes=notes,
    )


def _removable(left: Left, retained: Mapping[Removed, RetainedDraws]) -> Iterator[Removable]:
    """Yield how many blocks may be removed for each contender that was measured at several numbers of blocks."""
    for pruner, contender in dict.fromkeys((pruner, contender) for pruner, _, contender in left):
        curves: dict[int, dict[int, float]] = {}
        for key, models in left.items():
            known = retained.get(key) if (key[0], key[2]) == (pruner, contender) else None
            by_repeat = None if known is None else worst_by_repeat(known)
            for model, share in zip(models, by_repeat or (), strict=False):
                curves.setdefault(model.model.draw, {})[len(model.blocks)] = share
        measured, levels = removable(list(curves.values()))
        if len(measured) > 1:
            yield Removable(pruner=pruner, label=contender.label, measured=measured, levels=levels)


def unknown(intact: Mapping[Key, Metric], by_task: Mapping[str, Metric]) -> Iterator[str]:
    """Yield notes on what the intact model's metrics cannot show, and why."""
    yield from small(by_task.values())
    for task, metric in by_task.items():
        if reason := why_nothing(metric):
            yield reason
            continue
        if metric.likelihood is None and metric.floor is None:
            yield f"{task}: the evaluator gives no floor of {metric.name}, so that what chance gives counts as retained"
        if unknown_parts := parts_at_floor(metric):
            yield (
                f"{task}: what is retained leaves out {', '.join(unknown_parts)}, where the intact model is not "
                f"{noise(len(metric.parts)):.2g} standard errors above what chance gives"
            )
    if unsure := [f"{m.name} of {m.task}" for m in intact.values() if m.stderr is None]:
        yield f"no error is known, so that no winner can be determined: {listing(unsure, limit=3)}"
    if alone := [f"{m.name} of {m.task}" for m in intact.values() if m.count is None and m.stderr is not None]:
        yield f"not known document by document, and so compared as if on different ones: {listing(alone, limit=3)}"


def small(metrics: Iterable[Metric]) -> Iterator[str]:
    """Yield warnings about tasks with few documents."""
    for metric in metrics:
        if (count := metric.count) is not None and count < FEW:
            plural = "s" * (count > 1)
            yield f"{metric.task} has {count} document{plural}: under {FEW}, only large differences can be detected"


def above_the_intact(
    by_task: Mapping[str, Metric], label: str, tables: Sequence[Mapping[Key, Metric]], retained: RetainedDraws
) -> Iterator[str]:
    """Yield notes on a contender whose models are better than the intact model.

    Args:
        by_task: The metric by which each task counts, of the intact model.
        label: The contender, in words.
        tables: The metrics of each repeat.
        retained: What the models retain.
    """
    for task, share in retained.tasks.items():
        if share is not None and round(share.mean, 3) > 1:
            metric = by_task[task]
            parts = share.draws is not None and bool(parts_at_floor(metric))
            if parts:  # the whole average also counts parts that the share leaves out
                intact = Estimate(np.ones(1), np.ones((1, 1)), share.documents)
                test = difference(share, intact, paired=False)
            else:
                estimate = Estimate.of([table[task, metric.name] for table in tables])
                test = difference(estimate, Estimate.of([metric]), paired=False)
            where = " on the parts that count" * parts
            chance = "" if test.p is None else f", {'more' if test.tells else 'no more'} than chance explains"
            p = "" if test.p is None else f" (p = {test.p:.2g})"
            yield f"{label} retains {share.mean:.1%} of {task}: it is better than the intact model{where}{chance}{p}"


def not_as_asked(left: Left) -> Iterator[str]:
    """Yield a note on each healer that, in some models, did at every gap something other than requested, or nothing."""
    reasons: dict[str, dict[tuple[int, tuple[int, ...]], list[str]]] = {}
    for (_, _, contender), models in left.items():
        for model in (each.model for each in models):
            if model.healing:
                own = [gap.why for gap in model.healing.gaps]
                reasons.setdefault(contender.healer, {})[model.draw, tuple(sorted(model.blocks))] = own
    for healer, by_model in reasons.items():
        other = [(blocks, own[0]) for (_, blocks), own in by_model.items() if own and all(own)]
        if other:
            blocks, why = other[0]
            yield (
                f"{healer} did something other than requested, or nothing, at every gap of {len(other)} of "
                f"{len(by_model)} models, such as without {named(blocks)}: {why}"
            )


def collapsed(label: str, models: Sequence[Fidelity | None]) -> Iterator[str]:
    """Yield a note if texts of a contender's models have collapsed.

    Args:
        label: The contender, in words.
        models: The fidelity of its models, one for each repeat.
    """
    measured = [fidelity for fidelity in models if fidelity is not None]
    collapses = [each for fidelity in measured if fidelity.generation and (each := fidelity.generation.collapse)]
    if collapses:
        which = f" ({len(collapses)} of {len(measured)} models collapse)" if len(measured) > 1 else ""
        yield f"{label}: {collapses[0]}{which}"


def missing_fidelity(left: Left) -> Iterator[str]:
    """Yield a note on the measures of fidelity that are missing, with the reasons."""
    records = [known for models in left.values() for each in models if (known := each.model.fidelity) is not None]
    missing = dict.fromkeys(f"{name} ({why})" for record in records for name, why in record.missing.items())
    if missing:
        yield f"not measured: {'; '.join(missing)}"

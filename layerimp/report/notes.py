"""Notes for a reader of the numbers: what they cannot show, and what is remarkable about them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from layerimp.fidelity.record import Fidelity
from layerimp.metric import Key, Metric
from layerimp.report.paired_bootstrap import Estimate, difference
from layerimp.report.retained import FEW, Retained, why_nothing
from layerimp.report.rows import Left
from layerimp.steps import Step, named, simplest


def unknown(intact: Mapping[Key, Metric], by_task: Mapping[str, Metric]) -> Iterator[str]:
    """Yield notes on what the intact model's metrics cannot show, and why."""
    yield from small(by_task.values())
    for task, metric in by_task.items():
        if reason := why_nothing(metric):
            yield reason
        elif metric.likelihood is None and metric.floor is None:
            yield f"{task}: the evaluator gives no floor of {metric.name}, so that what chance gives counts as retained"
    if unsure := [f"{m.name} of {m.task}" for m in intact.values() if m.stderr is None]:
        yield f"no error is known, so that no winner can be determined: {_few(unsure)}"
    if alone := [f"{m.name} of {m.task}" for m in intact.values() if m.count is None and m.stderr is not None]:
        yield f"not known document by document, and so compared as if on different ones: {_few(alone)}"


def small(metrics: Iterable[Metric]) -> Iterator[str]:
    """Yield warnings about tasks with few documents."""
    for metric in metrics:
        if (count := metric.count) is not None and count < FEW:
            plural = "s" * (count > 1)
            yield f"{metric.task} has {count} document{plural}: under {FEW}, only large differences can be detected"


def _few(names: Sequence[str]) -> str:
    """List at most three names, and say how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def above_the_intact(
    by_task: Mapping[str, Metric], label: str, tables: Sequence[Mapping[Key, Metric]], retained: Retained
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
            estimate = Estimate.of([table[task, metric.name] for table in tables])
            test = difference(estimate, Estimate.of([metric]), paired=False)
            chance = "" if test.p is None else f", {'more' if test.tells else 'no more'} than chance explains"
            p = "" if test.p is None else f" (p = {test.p:.2g})"
            yield f"{label} retains {share.mean:.1%} of {task}: it is better than the intact model{chance}{p}"


def not_as_asked(left: Left) -> Iterator[str]:
    """Yield a note on each healer that, in some models, did at every gap something other than requested, or nothing."""
    reasons: dict[str, dict[tuple[int, tuple[Step, ...]], list[str]]] = {}
    for (_, _, contender), models in left.items():
        for model in (each.model for each in models):
            if model.healing:
                own = [gap.why for gap in model.healing.gaps]
                reasons.setdefault(contender.healer, {})[model.draw, tuple(simplest(model.blocks))] = own
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

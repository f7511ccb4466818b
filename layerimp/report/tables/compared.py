"""The tables of `layerimp compare`: how far models are from the intact one, their tasks, and what they write."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from layerimp._table import Cell, Column, Table
from layerimp.fidelity import Fidelity
from layerimp.models.origin import model_name
from layerimp.report.results.compared import ModelComparison
from layerimp.report.results.measures import Difference, Flips, Measured
from layerimp.report.tables.numbers import number, percentage, share_cell, to_either_side, two_digits

_NOTHING = Cell(text="-")
_FIDELITY = (
    "divergence: KL from the intact model's prediction of each token or label, in nats, ± one standard error; "
    "agreement: the share of predictions with the same top token or label"
)
_COPYING = "copying: the share of tokens predicted right where a row repeats itself"
_GENERATION = (
    "same tokens: how many greedy tokens are equal before the first difference; empty, loops: the share of "
    "continuations without text, and that end in a loop"
)
_TASKS = (
    "± one standard error over the documents; to intact: the difference document by document, with its 95 % interval; "
    "*: p < 0.05, corrected for the number of models; flips: other answers than the intact model's, and how many went "
    "from right to wrong and back; retained: 100 % is the intact model, 0 % a model that knows nothing"
)


_NAMING = ("task", "metric", "model")
_VALUES = ("value", "to intact", "p", "flips", "right to\nwrong", "wrong to\nright", "retained")


def tables(comparison: ModelComparison) -> list[Table]:
    """Return the tables of a comparison: fidelity, and tasks if there are any."""
    found = [fidelity_table(comparison)] if comparison.fidelity else []
    return [*found, task_table(comparison)] if comparison.intact.metrics else found


def fidelity_table(comparison: ModelComparison) -> Table:
    """Return a row for each model with its size and its distance from the intact model, which comes first."""
    text, name = comparison.text, model_name(comparison.intact.model)
    known = [comparison.fidelity.get(label) for label in comparison.models]
    sizes = [comparison.intact.size, *(model.size for model in comparison.models.values())]
    columns = [
        Column("model", [name, *comparison.models], "left"),
        Column("blocks", [size.blocks for size in sizes]),
        Column("bytes", [size.bytes for size in sizes]),
        *fidelity_columns(known),
    ]
    title = f"how far from {name} ({text.rows} rows, {text.tokens:,} tokens of {text.source})"
    return Table(columns, title, notes=list(_fidelity_notes(known)))


def fidelity_columns(known: Sequence[Fidelity | None]) -> Iterator[Column]:
    """Yield the columns of fidelity: first the intact model's own shares, then a row for each other model."""
    yield Column("divergence\nmean", [Cell(), *map(_divergence, known)])
    for head, (place, show) in _DISTANCES.items():
        values = [_at(each, place) for each in known]
        if any(value is not None for value in values):
            yield Column(head, [Cell(), *(_shown(value, show) for value in values)])
    for head, (place, own) in _SHARES.items():
        shares = [_at(each, place) for each in known]
        if any(share is not None for share in shares):
            intact = next(share for share in (_at(each, own) for each in known) if share is not None)
            yield Column(head, [_shown(share, percentage) for share in (intact, *shares)])


def _divergence(fidelity: Fidelity | None) -> Cell:
    if fidelity is None or fidelity.divergence is None:
        return Cell()
    mean, error = fidelity.divergence.mean, fidelity.divergence.stderr
    return Cell(mean, number(mean), "" if error is None else f"± {two_digits(error)}", error)


_DISTANCES: Mapping[str, tuple[str, Callable[[float], str]]] = {
    "divergence\np99": ("divergence.p99", number),
    "agreement": ("agreement", percentage),
    "same\ntokens": ("generation.same_tokens", number),
}
"""By head, the figures that the intact model does not have: their place, and how they are shown."""
_SHARES = {
    "copying": ("copying.accuracy", "copying.intact"),
    "empty": ("generation.empty", "generation.intact_empty"),
    "loops": ("generation.loops", "generation.intact_loops"),
}
"""By head, the places of the shares of a model, and of the intact model's."""


def _at(fidelity: Fidelity | None, place: str) -> float | None:
    """Return the figure at a place, such as `divergence.mean`; None if it was not measured."""
    value: Any = fidelity
    for name in place.split("."):
        value = None if value is None else getattr(value, name)
    return None if value is None else float(value)


def _fidelity_notes(known: Sequence[Fidelity | None]) -> Iterator[str]:
    yield _FIDELITY
    if any(each and each.copying for each in known):
        yield _COPYING
    if any(each and each.generation for each in known):
        yield _GENERATION


def _shown(value: float | None, show: Callable[[float], str]) -> Cell:
    return Cell() if value is None else Cell(value, show(value))


def task_table(comparison: ModelComparison) -> Table:
    """Return a row for each model and each metric of the tasks that count; members of groups are left out."""
    rows = list(_rows(comparison))
    heads = (
        "task",
        "metric",
        "model",
        "value",
        "to intact",
        "p",
        "flips",
        "right to\nwrong",
        "wrong to\nright",
        "retained",
    )
    sides = ("left", "left", "left", *["right"] * 7)
    columns = [
        Column(head, [row[place] for row in rows], side)  # type: ignore[arg-type]
        for place, (head, side) in enumerate(zip(heads, sides, strict=True))
    ]
    return Table(columns, "tasks, document by document", naming=3, notes=[_TASKS])


def _rows(comparison: ModelComparison) -> Iterator[list[str | Cell]]:
    counted = {
        task for model in comparison.models.values() for task in (model.retained.tasks if model.retained else ())
    }
    for task, metrics in comparison.intact.metrics.items():
        if task not in counted:
            continue
        for name, intact in metrics.items():
            arrow = "↑" if intact.higher_is_better else "↓"
            yield [task, f"{name} {arrow}", model_name(comparison.intact.model), _value(intact), *[Cell()] * 6]
            for label, model in comparison.models.items():
                own = model.metrics.get(task, {}).get(name)
                if own is None:
                    continue
                difference = model.differences.get(task, {}).get(name)
                cells = [_value(own), *_contrast(difference), *_flips(own.flips)]
                first_listed = name == next(iter(metrics))
                kept = model.retained.tasks.get(task) if model.retained and first_listed else None
                yield ["", "", label, *cells, share_cell(kept) if first_listed else Cell()]


def _value(metric: Measured) -> Cell:
    error = to_either_side(metric.value, metric.ends, two_digits)
    return Cell(metric.value, number(metric.value), error, metric.stderr)


def _contrast(difference: Difference | None) -> list[Cell]:
    """Show a difference with its interval and a mark if it is significant, and its p-value."""
    if difference is None:
        return [_NOTHING, _NOTHING]
    span = "" if None in (difference.low, difference.high) else f" [{difference.low:+.2g}, {difference.high:+.2g}]"
    mark = " *" if difference.tells else ""
    p = Cell() if difference.p is None else Cell(difference.p, f"{difference.p:.2g}")
    return [Cell(difference.mean, f"{difference.mean:+.3g}{span}{mark}"), p]


def _flips(flips: Flips | None) -> list[Cell]:
    if flips is None:
        return [Cell()] * 3
    share = Cell(text="-") if flips.share is None else Cell(flips.share, percentage(flips.share))
    return [share, *(Cell(count, f"{count:g}") for count in (flips.to_wrong, flips.to_right))]


def texts(comparison: ModelComparison) -> Table:
    """Return continuations of the same prompts: a row for each prompt, and a column for each model."""
    generated = {label: each.generation for label, each in comparison.fidelity.items() if each.generation is not None}
    by_prompt: dict[Cell, dict[str, str]] = {}
    for label, generation in generated.items():
        for one in generation.samples:
            prompt = Cell(f"{one.prompt}{' (in the chat template)' * one.chat}")
            by_prompt.setdefault(prompt, {"": one.intact})[label] = one.text
    heads = {"": model_name(comparison.intact.model), **{label: label for label in generated}}
    columns = [
        Column(head, [Cell(line.get(key, "").strip() or "(nothing)") for line in by_prompt.values()], "left")
        for key, head in heads.items()
    ]
    return Table([Column("prompt", list(by_prompt), "left"), *columns], "what they write")

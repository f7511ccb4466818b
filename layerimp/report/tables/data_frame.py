"""All numbers of a run or a grid, each as a record: what tables show, and the rows of the DataFrame and of the CSV."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from layerimp._table import Cell
from layerimp.defaults import ORIGINAL
from layerimp.report import words
from layerimp.report.results.comparison import Compared, Design, ModelResults
from layerimp.report.results.contenders import Contender
from layerimp.report.results.measures import Interval, Measured
from layerimp.report.results.models import Amount, Removal
from layerimp.report.results.rows import RETAINED, Entry, Row
from layerimp.report.statistics import interval
from layerimp.report.tables.fidelity_figures import FIGURES
from layerimp.report.words import Ends, Show, number, percentage, to_either_side, two_digits

if TYPE_CHECKING:
    from pandas import DataFrame

    from layerimp.fidelity.record import Fidelity

QUALITY, COST, SIZE, FIDELITY = "quality", "cost", "size", "fidelity"
"""The kinds of numbers that intact and pruned models have."""

FLIPS, TO_WRONG, TO_RIGHT = "flips", "right to wrong", "wrong to right"
"""The share of the answers that are others than the intact model's, and how many of these are losses and gains."""

_DTYPES: Mapping[str, Any] = {"amount": "object", "block": "object", "documents": "Int64"}
"""The dtypes of columns in which whole numbers stay whole where others are missing."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """A number of a model. For the meanings of the fields see `Results.to_pandas`."""

    model: str
    pruner: str = ""
    amount: Amount | None = None
    scorer: str = ORIGINAL
    healer: str = ""
    blocks: float | None = None
    removed: str = ""
    kind: str
    task: str = ""
    metric: str
    block: int | None = None
    higher_is_better: bool | None = None
    mean: float
    low: float | None = None
    high: float | None = None
    n: int = 1
    documents: int | None = None
    at_floor: bool | None = None
    error_low: float | None = None
    error_high: float | None = None
    original: float | None = None
    retained: float | None = None
    best: bool = False
    removed_blocks: float | None = None
    removed_parameters_low: float | None = None
    removed_parameters_high: float | None = None
    at_least: bool | None = None

    @property
    def label(self) -> str:
        """The contender, or the intact model."""
        return Contender(self.scorer, self.healer).label

    @property
    def ends(self) -> Ends:
        """The mean minus and plus one standard error."""
        return self.error_low, self.error_high

    @property
    def stderr(self) -> float | None:
        """The standard error, if it is known."""
        return None if self.error_low is None or self.error_high is None else (self.error_high - self.error_low) / 2

    @property
    def show(self) -> Show:
        """How the mean is shown."""
        if self.task == RETAINED or (self.kind, self.metric) == (FIDELITY, FLIPS):
            return percentage
        return FIGURES[self.metric].show if self.kind == FIDELITY and self.metric in FIGURES else number

    def cell(self, *, repeated: bool = False) -> Cell:
        """Show a metric, or what is retained.

        Args:
            repeated: Whether ± is the interval over repeats, and the standard error over documents in brackets, also of
                a single model; of several it always is.
        """
        show_error = two_digits if self.show is number else percentage
        error = to_either_side(self.mean, self.ends, show_error)
        if repeated or self.n > 1:
            over_repeats = to_either_side(self.mean, (self.low, self.high), show_error)
            error = f"{over_repeats} ({error.removeprefix('± ')})".lstrip() if error else over_repeats
        return Cell(self.mean, self.show(self.mean), error, self.stderr, self.best)


def frame(compared: Compared) -> DataFrame:
    """Return all numbers as a DataFrame; what does not exist is missing."""
    from pandas import DataFrame, Series

    known = list(records(compared))
    columns = {name: [getattr(record, name) for record in known] for name in (field.name for field in fields(Record))}
    return DataFrame({name: Series(values, dtype=_DTYPES.get(name)) for name, values in columns.items()})


def as_csv(compared: Compared) -> str:
    """Return all numbers as CSV, with the columns of the DataFrame."""
    return str(frame(compared).to_csv(index=False, lineterminator="\n"))


def records(compared: Compared) -> Iterator[Record]:
    """Yield all numbers: of each model its scores, those of the intact model, and those of pruned models."""
    for model in compared.models.values():
        for label, scored in model.scored.items():
            for block, mean in zip(scored.blocks, scored.means, strict=True):
                yield Record(model=model.label, scorer=label, kind="score", metric="score", block=block, **_mean(mean))
        yield from model_records(compared.design, model)
        for removable in model.removables:
            who = compared.design.contenders[removable.label]
            names: dict[str, Any] = {
                "model": model.label,
                "pruner": removable.pruner,
                "scorer": who.scorer,
                "healer": who.healer,
            }
            for share, level in removable.levels.items():
                known = _mean(level.mean) | ({"low": None, "high": None} if level.at_least else {})
                yield Record(
                    kind="removable", metric=f"{share:.0%} retained", at_least=level.at_least, **names, **known
                )


def model_records(design: Design, model: ModelResults) -> Iterator[Record]:
    """Yield what is known of an intact model, and then of what was pruned from it: its quality, size and cost."""
    for task, metrics in model.metrics.items():
        for name, metric in metrics.items():
            yield Record(model=model.label, blocks=0, kind=QUALITY, task=task, metric=name, **_measured(metric))
    for name, size in model.size or ():
        yield Record(model=model.label, blocks=0, kind=SIZE, metric=name, mean=size)
    for name, cost in model.footprint.items():
        yield Record(model=model.label, blocks=0, kind=COST, metric=name, **_with_error(cost.value, cost.stderr))
    removals = model.removed
    for row in model.rows:
        for label, entry in row.entries.items():
            removal = removals[row.pruner, row.amount, label]
            alone = design.repeats == len(removal.models) == 1
            yield Record(**_pruned(model, removal), **_compared(row, entry, removal if alone else None))
    for removal in model.removals:
        yield from _size_and_cost(model, removal)
        measured = [each.fidelity for each in removal.models if each.fidelity is not None]
        if len(measured) == len(removal.models):
            yield from distances(measured, **_pruned(model, removal))
        yield from _flips(model, removal)


def shown(design: Design, model: ModelResults) -> Iterator[Record]:
    """Yield the same without what tables side by side have no room for.

    These are the tasks of a group within a group, such as those of BLiMP in a selection, and the counts of flips.
    """
    inner = model.inner
    known = (record for record in model_records(design, model) if record.task not in inner)
    yield from (record for record in known if record.metric not in (TO_WRONG, TO_RIGHT))


def _mean(value: Interval) -> dict[str, Any]:
    return {"mean": value.mean, "low": value.low, "high": value.high, "n": value.count}


def _ends(ends: tuple[float, float] | None) -> dict[str, Any]:
    low, high = ends or (None, None)
    return {"error_low": low, "error_high": high}


def _with_error(value: float, stderr: float | None) -> dict[str, Any]:
    return {"mean": value} | _ends(None if stderr is None else (value - stderr, value + stderr))


def _measured(metric: Measured) -> dict[str, Any]:
    return {
        "mean": metric.value,
        "documents": metric.documents,
        "at_floor": metric.at_floor,
        "higher_is_better": metric.higher_is_better,
        **_ends(metric.ends),
    }


def _pruned(model: ModelResults, removal: Removal) -> dict[str, Any]:
    """Return what a pruned model is."""
    counts = [len(each.blocks) for each in removal.models]
    return {
        "model": model.label,
        "pruner": removal.pruner,
        "amount": removal.amount,
        "scorer": removal.scorer,
        "healer": removal.healer,
        "blocks": sum(counts) / len(counts),
        "removed": words.always([each.blocks for each in removal.models]),
    }


def _compared(row: Row, entry: Entry, removal: Removal | None) -> dict[str, Any]:
    """Return a metric, or what is retained. Without repeats the error is that of the metric itself.

    Args:
        row: The row of the results.
        entry: The contender.
        removal: What the contender removed; None if it did so several times, or if there are repeats.
    """
    single = removal.models[0].metrics.get(row.task, {}).get(row.metric) if removal else None
    return {
        "kind": QUALITY,
        "task": row.task,
        "metric": row.metric,
        "higher_is_better": row.higher_is_better,
        **_mean(entry.value),
        "documents": row.original and row.original.documents,
        "at_floor": row.original and row.original.at_floor,
        **_ends(single.ends if single else entry.ends),
        "original": row.original and row.original.value,
        "retained": entry.retained and entry.retained.mean,
        "best": entry.best,
        "removed_blocks": row.removed_blocks,
        "removed_parameters_low": row.removed_parameters[0],
        "removed_parameters_high": row.removed_parameters[1],
    }


def _size_and_cost(model: ModelResults, removal: Removal) -> Iterator[Record]:
    """Yield the sizes and the costs that are known in every repeat."""
    pruned, models = _pruned(model, removal), removal.models
    whole = model.size
    for name in ("blocks", "parameters", "bytes"):
        if whole is not None and all(each.size for each in models):
            left = interval([getattr(each.size, name) for each in models])
            yield Record(**pruned, kind=SIZE, metric=name, original=getattr(whole, name), **_mean(left))
    for name, before in model.footprint.items():
        costs = [each.footprint[name] for each in models if name in each.footprint]
        if len(costs) == len(models):
            error = _with_error(costs[0].value, costs[0].stderr) if len(costs) == 1 else {}
            values = error | _mean(interval([cost.value for cost in costs]))
            yield Record(**pruned, kind=COST, metric=name, original=before.value, **values)


def distances(known: Sequence[Fidelity], **about: Any) -> Iterator[Record]:
    """Yield how far models, one for each repeat, are from the intact one, as far as it is known of all of them.

    Args:
        known: The fidelity of each.
        about: What the records are about.
    """
    for name, figure in FIGURES.items():
        values = [value for each in known if (value := figure.of(each)) is not None]
        intact = [value for each in known if (value := figure.intact(each)) is not None]
        if values and len(values) == len(known):
            error = _with_error(values[0], figure.stderr(known[0])) if len(known) == 1 else {}
            yield Record(
                **about,
                kind=FIDELITY,
                metric=name,
                higher_is_better=figure.higher_is_better,
                original=sum(intact) / len(intact) if intact else None,
                **error | _mean(interval(values)),
            )


def _flips(model: ModelResults, removal: Removal) -> Iterator[Record]:
    """Yield how many answers to each task are others than the intact model's, by the first metric that says so."""
    pruned, inner = _pruned(model, removal), model.inner
    for task, by_metric in removal.flips.items():
        if task in inner:
            continue
        name, mean = next(iter(by_metric.items()))
        each = [
            known for pruned_model in removal.models if (known := pruned_model.metrics[task][name].flips) is not None
        ]
        about = pruned | {"kind": FIDELITY, "task": task, "documents": model.metrics[task][name].documents}
        shares = [flips.share for flips in each if flips.share is not None]
        if mean.share is not None:
            error = _with_error(mean.share, mean.stderr)
            yield Record(**about | error | _mean(interval(shares)), metric=FLIPS, higher_is_better=False)
        to_wrong, to_right = (interval([getattr(flips, way) for flips in each]) for way in ("to_wrong", "to_right"))
        yield Record(**about, **_mean(to_wrong), metric=TO_WRONG, higher_is_better=False)
        yield Record(**about, **_mean(to_right), metric=TO_RIGHT, higher_is_better=True)

"""The document of `layerimp compare`: what builds it, its tables, and how its directory is recognized."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from layerimp._table import Cell, Column, Table
from layerimp._version import versions
from layerimp.fidelity import Fidelity
from layerimp.models.origin import model_name
from layerimp.report.build import above_the_intact, collapsed, unknown
from layerimp.report.document import PAGE
from layerimp.report.paired_bootstrap import Estimate, difference
from layerimp.report.results.compared import ComparedModel, MeasuredModel, ModelComparison
from layerimp.report.results.measures import Difference, Flips, Measured
from layerimp.report.retained import counting, shares, summed_up
from layerimp.report.statistics import by_task, corrected
from layerimp.report.tables.data_frame import distances
from layerimp.report.tables.fidelity_figures import FIGURES, figures_note
from layerimp.report.tables.models import MISSING, fidelity_columns
from layerimp.report.words import changed, number, percentage, share_cell, to_either_side, two_digits

if TYPE_CHECKING:
    from layerimp.calibration.sampling import Calibration
    from layerimp.metric import Key, Metric
    from layerimp.report.results.models import Size

COMPARISON = "comparison.json"
"""The file of the document in an output directory."""


@dataclass(frozen=True)
class ModelMeasures:
    """What was measured of one model.

    Attributes:
        name: The model, as it was named.
        size: Its size.
        dtype: The dtype that it computes in.
        metrics: The metrics of quality, by task and name.
        fidelity: How far it is from the intact model; None for that one, and if it was not measured.
    """

    name: str
    size: Size
    dtype: str
    metrics: Mapping[Key, Metric]
    fidelity: Fidelity | None = None


def compared(
    request: dict[str, Any],
    text: Calibration,
    intact: ModelMeasures,
    models: Mapping[str, ModelMeasures],
    *,
    failures: Mapping[str, str],
    notes: Sequence[str],
) -> ModelComparison:
    """Compare models with an intact one.

    Args:
        request: What was asked for.
        text: The text that fidelity is measured on.
        intact: The intact model.
        models: The other models, by label.
        failures: By label, why an evaluator failed.
        notes: Notes from the measuring.
    """
    by_name = counting(intact.metrics.values())
    retained = {label: summed_up(by_name, [model.metrics]) for label, model in models.items()}
    differences = _differences(intact, models)
    return ModelComparison(
        request=request,
        text=text,
        intact=MeasuredModel(**_measured(intact)),
        models={
            label: ComparedModel(
                **_measured(model, intact.metrics),
                differences=differences[label],
                retained=shares(retained[label]) if intact.metrics else None,
            )
            for label, model in models.items()
        },
        counting={task: metric.name for task, metric in by_name.items()},
        factors=[key for key, each in intact.metrics.items() if each.likelihood and not each.likelihood.bits],
        fidelity={label: model.fidelity for label, model in models.items() if model.fidelity is not None},
        failures=dict(failures),
        notes=[
            *notes,
            *unknown(intact.metrics, by_name),
            *(
                note
                for label, model in models.items()
                for note in above_the_intact(by_name, label, [model.metrics], retained[label])
            ),
            *(note for label, model in models.items() for note in _of_fidelity(label, model.fidelity)),
        ],
        versions=[versions()],
        output=None,
    )


def _measured(model: ModelMeasures, intact: Mapping[Key, Metric] = MappingProxyType({})) -> dict[str, Any]:
    metrics = by_task(model.metrics.values(), intact)
    return {"model": model.name, "size": model.size, "dtype": model.dtype, "metrics": metrics}


def _differences(
    intact: ModelMeasures, models: Mapping[str, ModelMeasures]
) -> dict[str, dict[str, dict[str, Difference]]]:
    """Return the differences to the intact model by label, task and name; p-values are corrected over the models."""
    differences: dict[str, dict[str, dict[str, Difference]]] = {label: {} for label in models}
    for key, before in intact.metrics.items():
        contrasts = {
            label: difference(Estimate.of([model.metrics[key]]), Estimate.of([before]), paired=True)
            for label, model in models.items()
            if key in model.metrics
        }
        for label, contrast in corrected(contrasts).items():
            differences[label].setdefault(before.task, {})[before.name] = contrast
    return differences


def _of_fidelity(label: str, fidelity: Fidelity | None) -> Iterator[str]:
    """Yield notes on what was not measured, and on texts that have collapsed."""
    if fidelity is not None:
        yield from (f"{label}: no {what} was measured: {why}" for what, why in fidelity.missing.items())
    yield from collapsed(label, [fidelity])


def why_not_compared(directory: Path) -> str | None:
    """Tell why a directory is no output of `layerimp compare`; None if it is one."""
    if strange := sorted(entry.name for entry in directory.iterdir() if entry.name not in (COMPARISON, PAGE)):
        return f"it holds {strange[0]}, which layerimp compare does not write"
    try:
        ModelComparison.model_validate_json((directory / COMPARISON).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return f"it has no {COMPARISON} of layerimp compare"
    return None


_TASKS = (
    "± one standard error over the documents; to intact: the difference document by document, with its 95 % interval, "
    "and for a perplexity a factor; *: p < 0.05, corrected for the number of models; flips: other answers than the "
    "intact model's, and how many went from right to wrong and back; retained: 100 % is the intact model, 0 % a model "
    "that knows nothing"
)

_NAMING = ("task", "metric", "model")
_HEADS = (*_NAMING, "value", "to intact", "p", "flips", "right to\nwrong", "wrong to\nright", "retained")


def comparison_tables(comparison: ModelComparison) -> list[Table]:
    """Return the tables of a comparison: fidelity, and tasks if there are any."""
    fidelity = [fidelity_table(comparison)] if comparison.fidelity else []
    return [*fidelity, task_table(comparison)] if comparison.intact.metrics else fidelity


def fidelity_table(comparison: ModelComparison) -> Table:
    """Return a row for each model with its size and its distance from the intact model, which comes first."""
    text, name = comparison.text, model_name(comparison.intact.model)
    sizes = [comparison.intact.size, *(model.size for model in comparison.models.values())]
    measured = list(comparison.fidelity.values())
    shown = [name for name, figure in FIGURES.items() if any(figure.of(each) is not None for each in measured)]
    columns = [
        Column("model", [name, *comparison.models], "left"),
        Column("blocks", [size.blocks for size in sizes]),
        Column("bytes", [size.bytes for size in sizes]),
        *figures([comparison.fidelity.get(label) for label in comparison.models]),
    ]
    title = f"how far from {name} ({text.rows} rows, {text.tokens:,} tokens of {text.source})"
    return Table(columns, title, notes=[figures_note(shown)])


def figures(known: Sequence[Fidelity | None]) -> Iterator[Column]:
    """Yield the columns of fidelity: first the intact model's own figures, then those of each other model, if known."""
    records = ((distances([each], model="") if each else ()) for each in known)
    return fidelity_columns([{("", record.metric): record for record in line} for line in records])


def task_table(comparison: ModelComparison) -> Table:
    """Return a row for each model and each metric of the tasks that count; members of groups are left out."""
    rows = list(_rows(comparison))
    columns = [
        Column(head, [row[place] for row in rows], "left" if head in _NAMING else "right")
        for place, head in enumerate(_HEADS)
    ]
    return Table(columns, "tasks, document by document", naming=len(_NAMING), notes=[_TASKS])


def _rows(comparison: ModelComparison) -> Iterator[list[str | Cell]]:
    for task, counting_name in comparison.counting.items():
        for name, intact in comparison.intact.metrics[task].items():
            arrow = "↑" if intact.higher_is_better else "↓"
            yield [task, f"{name} {arrow}", model_name(comparison.intact.model), _value(intact), *[Cell()] * 6]
            for label, model in comparison.models.items():
                own = model.metrics.get(task, {}).get(name)
                if own is None:
                    continue
                difference = model.differences.get(task, {}).get(name)
                cells = [
                    _value(own),
                    *_contrast(difference, factor=(task, name) in comparison.factors),
                    *_flips(own.flips),
                ]
                kept = model.retained.tasks.get(task) if model.retained else None
                yield ["", "", label, *cells, share_cell(kept) if name == counting_name else Cell()]


def _value(metric: Measured) -> Cell:
    error = to_either_side(metric.value, metric.ends, two_digits)
    return Cell(metric.value, number(metric.value), error, metric.stderr)


def _contrast(difference: Difference | None, *, factor: bool) -> list[Cell]:
    """Show a difference with its interval and a mark if it is significant, and its p-value."""
    if difference is None:
        return [MISSING, MISSING]
    low, high = (None if end is None else changed(end, factor=factor) for end in (difference.low, difference.high))
    span = "" if None in (low, high) else f" [{low}, {high}]"
    mark = " *" if difference.tells else ""
    p = Cell() if difference.p is None else Cell(difference.p, f"{difference.p:.2g}")
    return [Cell(difference.mean, changed(difference.mean, factor=factor) + span + mark), p]


def _flips(flips: Flips | None) -> list[Cell]:
    if flips is None:
        return [Cell()] * 3
    share = MISSING if flips.share is None else Cell(flips.share, percentage(flips.share))
    return [share, *(Cell(count, f"{count:g}") for count in (flips.to_wrong, flips.to_right))]

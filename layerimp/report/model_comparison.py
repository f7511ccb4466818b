"""Builds and writes the document of `layerimp compare`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from layerimp._version import versions
from layerimp.report.document import PAGE, write_json
from layerimp.report.notes import above_the_intact, unknown
from layerimp.report.page import comparison_page
from layerimp.report.results.compared import ComparedModel, MeasuredModel, ModelComparison
from layerimp.report.statistics.measures import by_task, shares
from layerimp.report.statistics.paired_bootstrap import Estimate, difference
from layerimp.report.statistics.retained import counting, summed_up
from layerimp.report.statistics.significance import holm

if TYPE_CHECKING:
    from layerimp.calibration.sampling import Calibration
    from layerimp.fidelity import Fidelity
    from layerimp.metric import Metric
    from layerimp.report.results.measures import Difference
    from layerimp.report.results.models import Size
    from layerimp.report.statistics.retained import Key

COMPARISON = "comparison.json"
"""The file of the document in an output directory."""


@dataclass(frozen=True)
class ModelMeasures:
    """What was measured of one model.

    Attributes:
        name: The model, as it was named.
        size: Its size.
        dtype: The dtype that it computes in.
        metrics: The metrics of quality.
        fidelity: How far it is from the intact model; None for that one, and if it was not measured.
    """

    name: str
    size: Size
    dtype: str
    metrics: Sequence[Metric] = ()
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
    by_name, tables = counting(intact.metrics), {label: _table(model) for label, model in models.items()}
    retained = {label: summed_up(by_name, [table]) for label, table in tables.items()}
    above = (each for label in models for each in above_the_intact(by_name, label, [tables[label]], retained[label]))
    differences = _differences(intact.metrics, {label: model.metrics for label, model in models.items()})
    whole = _table(intact)
    return ModelComparison(
        request=request,
        text=text,
        intact=MeasuredModel(**_measured(intact)),
        models={
            label: ComparedModel(
                **_measured(model, whole),
                differences=differences[label],
                retained=shares(retained[label]) if intact.metrics else None,
            )
            for label, model in models.items()
        },
        fidelity={label: model.fidelity for label, model in models.items() if model.fidelity is not None},
        failures=dict(failures),
        notes=[*notes, *unknown(whole, by_name), *above, *_notes(models)],
        versions=[versions()],
        output=None,
    )


def _table(model: ModelMeasures) -> dict[Key, Metric]:
    """Return the metrics of a model by task and name."""
    return {(metric.task, metric.name): metric for metric in model.metrics}


def _measured(model: ModelMeasures, intact: Mapping[Key, Metric] | None = None) -> dict[str, Any]:
    metrics = by_task(model.metrics, intact or {})
    return {"model": model.name, "size": model.size, "dtype": model.dtype, "metrics": metrics}


def _differences(
    intact: Sequence[Metric], models: Mapping[str, Sequence[Metric]]
) -> dict[str, dict[str, dict[str, Difference]]]:
    """Return the differences to the intact model by label, task and name; p-values are corrected over the models."""
    found: dict[str, dict[str, dict[str, Difference]]] = {label: {} for label in models}
    for before in intact:
        key = before.task, before.name
        after = {label: own for label, metrics in models.items() for own in metrics if (own.task, own.name) == key}
        contrasts = {
            label: difference(Estimate.of([own]), Estimate.of([before]), paired=True) for label, own in after.items()
        }
        corrected = holm({label: each.p for label, each in contrasts.items() if each.p is not None})
        for label, contrast in contrasts.items():
            contrast = contrast.model_copy(update={"p": corrected.get(label)})
            found[label].setdefault(before.task, {})[before.name] = contrast
    return found


def _notes(models: Mapping[str, ModelMeasures]) -> Iterator[str]:
    for label, model in models.items():
        if (fidelity := model.fidelity) is None:
            continue
        yield from (f"{label}: no {what} was measured: {why}" for what, why in fidelity.missing.items())
        if fidelity.generation is not None and (collapse := fidelity.generation.collapse):
            yield f"{label}: {collapse}"


def write_comparison(comparison: ModelComparison, directory: Path) -> None:
    """Write the document and a page into a directory."""
    write_json(directory / COMPARISON, comparison.model_dump(mode="json"))
    (directory / PAGE).write_text(comparison_page(comparison), encoding="utf-8")


def why_not_compared(directory: Path) -> str | None:
    """Tell why a directory is no output of `layerimp compare`; None if it is one."""
    if strange := sorted(entry.name for entry in directory.iterdir() if entry.name not in (COMPARISON, PAGE)):
        return f"it holds {strange[0]}, which layerimp compare does not write"
    try:
        ModelComparison.model_validate_json((directory / COMPARISON).read_text(encoding="utf-8"))
    except (OSError, ValidationError, ValueError):
        return f"it has no {COMPARISON} of layerimp compare"
    return None

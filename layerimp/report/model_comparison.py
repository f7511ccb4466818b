"""Builds and writes the document of `layerimp compare`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from layerimp._version import versions
from layerimp.report.build import above_the_intact, collapsed, unknown
from layerimp.report.document import PAGE, write_json
from layerimp.report.page import comparison_page
from layerimp.report.paired_bootstrap import Estimate, difference
from layerimp.report.results.compared import ComparedModel, MeasuredModel, ModelComparison
from layerimp.report.retained import counting, shares, summed_up
from layerimp.report.statistics import by_task, corrected

if TYPE_CHECKING:
    from layerimp.calibration.sampling import Calibration
    from layerimp.fidelity import Fidelity
    from layerimp.metric import Key, Metric
    from layerimp.report.results.measures import Difference
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

"""Every JSON document that layerimp prints or writes, for its JSON Schema and for the tables of the reference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

from typing_extensions import is_typeddict

from layerimp.report import documents, forecast_documents, grid_documents, listing_documents

DOCUMENTS: dict[str, Any] = {
    "layerimp.report/2": documents.Report,
    "layerimp.scores/1": documents.ScoresFile,
    "layerimp.plan/2": documents.Plan,
    "layerimp.plans/2": documents.PlanFile,
    "layerimp.metrics/2": documents.MetricsFile,
    "layerimp.healing/1": documents.HealingReport,
    "layerimp.inspection/1": forecast_documents.Inspection,
    "layerimp.forecast/1": forecast_documents.Forecast,
    "layerimp.healing-forecast/1": forecast_documents.HealingForecast,
    "layerimp.grid-forecast/1": forecast_documents.GridForecast,
    "layerimp.plugins/1": listing_documents.PluginList,
    "layerimp.components/1": listing_documents.ComponentList,
    "layerimp.tasks/1": listing_documents.TaskList,
    "layerimp.cache/1": listing_documents.CacheList,
    "layerimp.schemas/1": listing_documents.SchemaList,
    "layerimp.error/1": documents.ErrorReport,
    "layerimp.findings/2": grid_documents.Findings,
}
"""The type of each document, by its `schema_version`."""


def parts(document: Any) -> list[Any]:
    """Return a document's type and the types in it, each once, from the whole to the details."""
    found = [document]
    for part in found:  # the list grows during the loop
        for hint in get_type_hints(part, include_extras=True).values():
            found += [inner for inner in _mappings(hint) if inner not in found]
    return found


def _mappings(hint: Any) -> Iterator[Any]:
    """Yield the typed mappings in a type."""
    if is_typeddict(hint):
        yield hint
    for inner in get_args(hint):
        yield from _mappings(inner)

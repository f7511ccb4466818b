"""Every JSON document that layerimp prints or writes, for its JSON Schema and for the tables of the reference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

from typing_extensions import is_typeddict

from layerimp.report import documents, forecast_documents, listing_documents
from layerimp.report.document import Results
from layerimp.report.results.healing import HealingReport
from layerimp.report.results.part import Part

DOCUMENTS: dict[str, Any] = {
    "layerimp.results/1": Results,
    "layerimp.plan/2": documents.Plan,
    "layerimp.plans/2": documents.PlanFile,
    "layerimp.healing/1": HealingReport,
    "layerimp.inspection/1": forecast_documents.Inspection,
    "layerimp.forecast/1": forecast_documents.Forecast,
    "layerimp.healing-forecast/1": forecast_documents.HealingForecast,
    "layerimp.grid-forecast/1": forecast_documents.GridForecast,
    "layerimp.plugins/1": listing_documents.PluginList,
    "layerimp.components/1": listing_documents.ComponentList,
    "layerimp.tasks/1": listing_documents.TaskList,
    "layerimp.task-details/1": listing_documents.TaskDetails,
    "layerimp.rows/1": listing_documents.RowFiles,
    "layerimp.cache/1": listing_documents.CacheList,
    "layerimp.schemas/1": listing_documents.SchemaList,
    "layerimp.error/1": documents.ErrorReport,
}
"""The type of each document, by its `schema_version`."""


def parts(document: Any) -> list[Any]:
    """Return a document's type and the types in it, each once, from the whole to the details."""
    found = [document]
    for part in found:  # the list grows during the loop
        for hint in hints(part).values():
            found += [inner for inner in _types(hint) if inner not in found]
    return found


def hints(part: Any) -> dict[str, Any]:
    """Return the types of a document's fields."""
    if is_typeddict(part):
        return get_type_hints(part, include_extras=True)
    return {name: field.annotation for name, field in part.model_fields.items()}


def is_part(hint: Any) -> bool:
    """Whether a type is that of a document, or of a part of one."""
    return is_typeddict(hint) or (isinstance(hint, type) and issubclass(hint, Part))


def _types(hint: Any) -> Iterator[Any]:
    """Yield the types of documents in a type."""
    if is_part(hint):
        yield hint
    for inner in get_args(hint):
        yield from _types(inner)

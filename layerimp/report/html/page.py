"""A comparison as a page: one HTML document that needs nothing else."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from layerimp.errors import OutputError
from layerimp.report.data import PAGE
from layerimp.report.folders import last_part, without_folders
from layerimp.report.formats import as_csv
from layerimp.report.html.figures import Figures
from layerimp.report.html.format import STEPS, columns_need, count, duration, listed, listing, together
from layerimp.report.html.svg import looks
from layerimp.report.html.view import View
from layerimp.report.json_export import as_document
from layerimp.report.results import Findings
from layerimp.report.tables import amounts, measured_on, number, percent

TEMPLATE = "page.html.jinja"


def page(found: Findings, *, command: str = "bench", data: Mapping[str, Any] | None = None) -> str:
    """The report as one HTML document.

    Args:
        found: What it shows.
        command: What computed that.
        data: What it offers for download as JSON, beside the tables as CSV; by default the findings.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    filters = {"duration": duration, "count": count, "listed": listed}
    environment.filters |= filters | {
        "amounts": amounts,
        "percent": percent,
        "share": "{:.1%}".format,
        "number": number,
        "measured_on": measured_on,
        "last_part": last_part,
        "without_folders": without_folders,
        "listing": listing,
        "columns_need": columns_need,
        "together": together,
    }
    template = environment.from_string(files(__package__).joinpath(TEMPLATE).read_text("utf-8"))
    design = found.design
    styles = looks(list(design.scorers), design.baselines, design.healers)
    views = {
        label: View(found, found.models[label], f"m{n}", styles) if label in found.models else None
        for n, label in enumerate(design.models)
    }
    downloads = {
        f"{command}.csv": _data_uri("text/csv", as_csv(found).encode()),
        f"{command}.json": _data_uri("application/json", json.dumps(data or as_document(found)).encode()),
    }
    figures = {label: Figures(view) for label, view in views.items() if view}
    return template.render(
        found=found, design=design, views=views, figures=figures, downloads=downloads, command=command, steps=STEPS
    )


def write(document: str, directory: Path) -> Path:
    """Write a page into a directory, in place of an older one, and return its path.

    Raises:
        OutputError: nothing can be written there.
    """
    path, unfinished = directory / PAGE, directory / f".{PAGE}"
    try:
        unfinished.write_text(document, encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error
    return path


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};charset=utf-8;base64,{base64.b64encode(content).decode()}"

"""A comparison as a page: one HTML document that needs nothing else."""

from __future__ import annotations

import base64
import json
from importlib.resources import files

from jinja2 import Environment, StrictUndefined

from layerimp.report.findings import Findings
from layerimp.report.formats import as_csv
from layerimp.report.html.figures import Figures
from layerimp.report.html.format import count, duration, last_part, listed, unbroken, without_folders
from layerimp.report.html.svg import looks
from layerimp.report.html.view import View
from layerimp.report.json_export import as_document
from layerimp.report.tables import measured_on, number, percent

TEMPLATE = "page.html.jinja"


def page(found: Findings) -> str:
    """The report as one HTML document."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    filters = {"named": unbroken, "duration": duration, "count": count, "listed": listed}
    environment.filters |= filters | {
        "percent": percent,
        "share": "{:.1%}".format,
        "number": number,
        "measured_on": measured_on,
        "last_part": last_part,
        "without_folders": without_folders,
    }
    template = environment.from_string(files(__package__).joinpath(TEMPLATE).read_text("utf-8"))
    design = found.design
    styles = looks(list(design.scorers), design.baselines, design.healers)
    views = {
        label: View(found, found.models[label], f"m{n}", styles) if label in found.models else None
        for n, label in enumerate(design.models)
    }
    downloads = {
        "bench.csv": _data_uri("text/csv", as_csv(found).encode()),
        "bench.json": _data_uri("application/json", json.dumps(as_document(found)).encode()),
    }
    figures = {label: Figures(view) for label, view in views.items() if view}
    return template.render(found=found, design=design, views=views, figures=figures, downloads=downloads)


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};charset=utf-8;base64,{base64.b64encode(content).decode()}"

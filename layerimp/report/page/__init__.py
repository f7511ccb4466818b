"""A comparison as a page: one HTML document that needs nothing else."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from pydantic import BaseModel

from layerimp._paths import last_part, tree_without_folders, without_folders
from layerimp.fidelity.record import Sample
from layerimp.models.origin import model_name
from layerimp.progress import span
from layerimp.report.document import PAGE, Results, movable, write_json, write_text
from layerimp.report.model_comparison import COMPARISON, comparison_tables
from layerimp.report.page.curves import curves, drawn, looks, sample
from layerimp.report.page.view import View, leads, question, subject
from layerimp.report.results.compared import ModelComparison
from layerimp.report.results.data import by_folder, documents_asked
from layerimp.report.results.shrunk import ShrinkReport
from layerimp.report.tables.data_frame import as_csv
from layerimp.report.tables.fidelity_figures import texts_of
from layerimp.report.tables.shrunk import lines_of
from layerimp.report.words import amounts_asked, measured_on, number, percent


def page(results: Results, shrunk: ShrinkReport | None = None) -> str:
    """Return results as one HTML document, which shows no local folders.

    Args:
        results: The results of a run or a grid, or of what a smaller model is measured by.
        shrunk: What `layerimp shrink` reports on the smaller model; the page begins with it.
    """
    design = results.design
    styles = looks(list(design.scorers) or [subject(results)], design.baselines, design.healers)
    views = {
        label: View(results, results.models[label], f"m{n}", styles) if label in results.models else None
        for n, label in enumerate(design.models)
    }
    downloads = {
        "results.csv": _data_uri("text/csv", as_csv(results).encode()),
        "results.json": _json_uri(movable(results)),
    }
    return (
        _environment()
        .get_template("page.html.jinja")
        .render(
            results=results,
            design=design,
            question=question(results),
            subject=subject(results),
            views=views,
            looks=styles,
            downloads=downloads,
            command="bench" if results.cells else "shrink" if shrunk else "run",
            summary=[] if shrunk is None else _summary(shrunk),
        )
    )


def comparison_page(comparison: ModelComparison) -> str:
    """Return a comparison of models as one HTML document, which shows no local folders."""
    return (
        _environment()
        .get_template("comparison.html.jinja")
        .render(
            comparison=comparison,
            name=model_name(comparison.intact.model),
            tables=comparison_tables(comparison),
            texts=texts_of(comparison.fidelity),
            download=_json_uri(comparison.model_copy(update={"output": None})),
        )
    )


@cache
def _environment() -> Environment:
    """Return what the templates are filled in with; it keeps the compiled templates."""
    environment = Environment(
        loader=FunctionLoader(lambda name: files(__package__).joinpath(name).read_text("utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "amounts": amounts_asked,
        "count": _count,
        "duration": span,
        "last_part": last_part,
        "listed": _listed,
        "measured_on": measured_on,
        "number": number,
        "percent": percent,
        "share": "{:.1%}".format,
        "together": _together,
        "width": "{:.2%}".format,
        "without_folders": without_folders,
    }
    environment.globals |= {"curves": curves, "drawn": drawn, "leads": leads, "sample": sample}
    environment.globals |= {"by_folder": by_folder, "documents_asked": documents_asked}
    return environment


def write_page(results: Results, directory: Path, shrunk: ShrinkReport | None = None) -> Path:
    """Write the page of results into a directory, in place of an older one, and return its path; see `page`.

    Raises:
        OutputError: nothing can be written there.
    """
    path = directory / PAGE
    write_text(path, page(results, shrunk))
    return path


def write_comparison(comparison: ModelComparison, directory: Path) -> None:
    """Write the document and a page into a directory."""
    write_json(directory / COMPARISON, comparison.model_dump(mode="json"))
    write_text(directory / PAGE, comparison_page(comparison))


def _summary(shrunk: ShrinkReport) -> list[str]:
    """Return the lines on a smaller model, without the folder that it lies in."""
    return lines_of(ShrinkReport.model_validate(_without_folders(shrunk) | {"output": None}))


def _json_uri(document: BaseModel) -> str:
    return _data_uri("application/json", json.dumps(_without_folders(document)).encode())


def _without_folders(document: BaseModel) -> Any:
    """Return a document's data without local folders, in which what models are given and write stays whole."""
    return tree_without_folders(document.model_dump(mode="json"), whole=Sample.model_fields)


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};charset=utf-8;base64,{base64.b64encode(content).decode()}"


def _count(value: int) -> str:
    """Return a count, its digits in groups that no line break parts."""
    return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def _listed(names: Iterable[str]) -> str:
    """Return names in a sentence."""
    *first, last = list(names) or ["none"]
    return f"{', '.join(first)} and {last}" if first else last


def _together(text: str) -> str:
    """Return a number with its error, which no line break parts from its sign."""
    return re.sub("(?<=[±≥]) ", "\N{NO-BREAK SPACE}", text)

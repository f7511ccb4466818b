"""The tables of what seams are worth, from the results of `benchmarks/seams_worth.py`.

The results lie in `benchmarks/results/seams_worth.jsonl`.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Iterator
from typing import Any

import pages

sys.path.append(str(pages.ROOT / "benchmarks"))
from cuts_compared import HEAD, Pair, rows

DATA = pages.ROOT / "benchmarks" / "results" / "seams_worth.jsonl"
NAMES = {"smollm2": "SmolLM2-135M", "gemma3": "Gemma 3 270M"}
"""How the pages call the models."""
DRAWS = 5
Row = tuple[str, ...]


def results() -> dict[str, list[dict[str, Any]]]:
    """Return what was measured, by model."""
    by_model: dict[str, list[dict[str, Any]]] = {name: [] for name in NAMES}
    for line in map(json.loads, DATA.read_text(encoding="utf-8").splitlines()):
        by_model[line["model"]].append(line)
    return by_model


@functools.cache
def compared(model: str) -> tuple[tuple[Pair, Row], ...]:
    """Return the comparisons of a model that have all their draws, each with its cells."""
    lines = results()[model]
    methods, counts, healers = (
        list(dict.fromkeys(line[key] for line in lines)) for key in ("method", "count", "healer")
    )
    every = rows(methods, counts, healers, lines)
    return tuple((pair, cells) for pair, cells in every if pair is not None and len(pair.lines) == DRAWS)


def table(model: str) -> tuple[list[str], list[list[str]]]:
    """Return all comparisons of a model, with what was removed where seams compete."""
    return [*HEAD, "removed of all cuts (draws)"], [[*_shown(cells), pair.removed()] for pair, cells in compared(model)]


def summary() -> tuple[list[str], list[list[str]]]:
    """Return the comparisons of all models at the largest number of blocks."""
    body = []
    for model, name in NAMES.items():
        most = compared(model)[-1][1][1]
        body += [[name, *_shown(cells)] for _, cells in compared(model) if cells[1] == most]
    return ["model", *HEAD], body


def _shown(cells: Row) -> Iterator[str]:
    """Yield the cells as they stand on pages: the method as code, a true minus, and a verdict that tells in bold."""
    method, *others, verdict = cells
    yield f"`{method}`"
    yield from (cell.replace("-", "−") for cell in others)
    word, star = verdict.rstrip("*"), " \\*" * verdict.endswith("*")
    yield f"**{word}**{star}" if word in ("better", "worse") else word

"""Results of made-up grids, and the content of their pages."""

from __future__ import annotations

import base64
import math
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from layerimp.bench.cell_graph import Chooser, Entrant, Layout, Measure, Mender, Subject
from layerimp.bench.cells import Cell
from layerimp.bench.grid import Grid
from layerimp.bench.results import grid_results
from layerimp.bench.store import StoredCell
from layerimp.evaluation.packing import packed
from layerimp.evaluator import Likelihood, Metric
from layerimp.pipeline.resolve import resolve
from layerimp.recipe import ComponentSpec
from layerimp.report.document import Results

BASELINES = ("random", "depth", "block-influence")
DOCUMENTS = 200


def layout_of(
    models: Sequence[str],
    scorers: Sequence[str],
    tasks: Sequence[str],
    pruners: Sequence[str],
    baselines: Sequence[str] = BASELINES,
    **grid: Any,
) -> Layout:
    named = {name: ComponentSpec(name=name) for name in scorers}
    company = {name: ComponentSpec(name=name) for name in baselines}
    made = Grid(models=list(models), scorers=named, baselines=company, pruners=list(pruners), tasks=("arc",), **grid)
    measures = tuple(Measure(evaluator="harness", task=task, tag=task) for task in tasks)
    return Layout(
        grid=made,
        models={m: Subject(recipe=resolve(made.recipe(m)), identity=m, text=m, measures=measures) for m in models},
        scorers={
            label: Entrant(spec=spec, blind=label in ("random", "depth"), seeded=label == "random", code="")
            for label, spec in (named | company).items()
        },
        pruners={label: Chooser(spec=spec, nested=True, code=label) for label, spec in made.pruners.items()},
        healers={label: Mender(spec=spec, code=label) for label, spec in made.healers.items()},
    )


class World:
    """Makes up results: later blocks matter less, and the quality falls with what is removed."""

    def __init__(self, num_blocks: int, infinite: bool = False) -> None:
        self.num_blocks, self.infinite = num_blocks, infinite
        self.plans: dict[str, list[float]] = {}

    def truth(self, block: int) -> float:
        return 0.15 + abs(math.sin(1.7 * block)) * 0.5 + (1.2 if block in (0, self.num_blocks - 1) else 0)

    def result(self, cell: Cell) -> Mapping[str, Any]:
        draw = random.Random(cell.key)
        if cell.kind == "scoring":
            noise = {"random": 9.0, "depth": 0.0}.get(cell.scorer, 0.05 + (sum(map(ord, cell.scorer)) % 7) * 0.07)
            right = 0 if cell.scorer in ("random", "depth") else 1
            scores = [
                right * self.truth(n) + draw.gauss(0, noise) - (0.1 * n if cell.scorer == "depth" else 0)
                for n in range(self.num_blocks)
            ]
            self.plans[cell.key] = scores
            return {"scores": scores, "blocks": [], "columns": {}, "notes": [], "spans": {}}
        if cell.kind == "planning":
            scores = self.plans[cell.content["scoring"]]
            order = sorted(range(self.num_blocks), key=lambda n: scores[n])
            if cell.content["pruner"] != "lowest":
                order = order[1:] + order[:1]
            return {"blocks": order[: cell.content["count"]]}
        if cell.kind == "costing":
            return {"bare_passes": 1.1 * 2.3 ** (sum(map(ord, cell.scorer)) % 6), "seconds": 1.0}
        blocks = cell.content["blocks"]
        whole = sum(map(self.truth, range(self.num_blocks)))
        left = 1 - sum(map(self.truth, blocks)) / whole
        healing = {}
        if "healing" in cell.content:
            left += (1 - left) * draw.uniform(0.2, 0.5)
            gap = {"gap": "a gap", "removed": blocks, "done": "half", "why": "", "numbers": {}}
            healing = {"healing": {"gaps": [gap], "loss": {}, "accuracy": None, "judging_rows": 32, "recovered": 0.3}}
        task = cell.content["task"]
        right = round(0.8 * DOCUMENTS * left**2)
        documents = (1.0,) * right + (0.0,) * (DOCUMENTS - right)
        metrics = [Metric(task, "acc", right / DOCUMENTS, 0.02, floor=0.1, documents=documents)]
        if task.startswith("wiki"):
            loss = math.inf if self.infinite and blocks else 2.5 + 3 * (1 - left)
            totals = tuple(-50 * loss + (-1) ** n for n in range(40))
            likelihood = Likelihood(totals, (50.0,) * 40, (-400.0,) * 40)
            metrics = [Metric("wikitext", "word_perplexity", math.exp(loss), 0.1, False, likelihood=likelihood)]
        size = self.num_blocks - len(blocks)
        sizes = {"blocks": size, "parameters": 10**6 * (size + 3), "bytes": 4 * 10**6}
        return {**packed(metrics), "size": sizes, **healing}


def found_of(
    models: Sequence[str] = ("tiny",),
    scorers: Sequence[str] = ("avss", "gbis", "lrp", "cim"),
    tasks: Sequence[str] = ("arc_easy", "boolq", "wikitext"),
    pruners: Sequence[str] = ("lowest",),
    num_blocks: int = 12,
    infinite: bool = False,
    fails: str = "",
    only: Sequence[str] = ("scoring", "planning", "evaluation", "costing"),
    **grid: Any,
) -> Results:
    """Results of made-up results: cells whose name contains `fails` fail, and cells other than `only` stay open."""
    layout = layout_of(models, scorers, tasks, pruners, **{"counts": (1,), "ratios": (0.25, 0.5), "repeats": 4, **grid})
    world, records = World(num_blocks, infinite), dict[str, StoredCell]()
    while True:
        results = {key: record.result for key, record in records.items() if record.result is not None}
        cells = {key: cell for model in layout.models for key, cell in layout.cells(results.get, model).items()}
        fresh = {key: cell for key, cell in cells.items() if key not in records and cell.kind in only}
        if not fresh:
            return grid_results(layout, records)
        for key, cell in fresh.items():
            failed = fails and fails in str(cell)
            error = "<script>alert('reason')</script> out of memory" if failed else ""
            records[key] = StoredCell(None if failed else world.result(cell), error, 1.5, "layerimp 0, torch 2")


def without_pictures(document: str) -> str:
    return re.sub(r"<svg.*?</svg>|<style>.*?</style>|data:[^\"]*", "", document, flags=re.DOTALL)


def words(document: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", without_pictures(document)).replace("\N{NO-BREAK SPACE}", " ").split())


def pictures(document: str) -> list[tuple[str, str]]:
    """The alternative text and the content of each picture; other SVG is hidden from who cannot see."""
    shown = re.findall(r'<svg [^>]*role="img" aria-label="([^"]*)">(.*?)</svg>', document, flags=re.DOTALL)
    hidden = re.findall(r'<svg [^>]*class="sample" aria-hidden="true">', document)
    assert len(shown) + len(hidden) == document.count("<svg")
    return shown


def part(document: str, title: str) -> str:
    """The first part of a page with that title."""
    return document.split(f"<h3>{title}</h3>")[1].split("<h3>")[0].split("</section>")[0]


def downloads(document: str) -> dict[str, bytes]:
    links = re.findall(r'href="data:[^;]+;charset=utf-8;base64,([^"]*)" download="([^"]*)"', document)
    return {name: base64.b64decode(content) for content, name in links}

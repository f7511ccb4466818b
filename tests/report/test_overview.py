"""A report and the results of a grid are tables in a notebook, with the numbers of their documents."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from support.grids import Arithmetic, drive
from support.reports import MadeUpRun, repaired

from layerimp import Importance, PrunePlan
from layerimp.bench.results import grid_results
from layerimp.bench.store import Store
from layerimp.evaluator import Metric
from layerimp.recipe import make_recipe
from layerimp.report.document import Results
from layerimp.report.overview import overview
from layerimp.report.results.models import Size
from layerimp.report.tables import removables, summaries


def words(html: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


def measured(right: int) -> list[Metric]:
    documents = (1.0,) * right + (0.0,) * (200 - right)
    return [Metric("mood", "acc", right / 200, 0.02, floor=0.5, documents=documents)]


def report(**parts: Any) -> MadeUpRun:
    made = MadeUpRun(make_recipe({"model": "my <model>", "scorers": ["avss", "gbis"]}), 6, "AutoModel")
    made.importance = {"avss": Importance([3.0, 1.0]), "gbis": Importance([1.0, 2.0], blocks=[0, "0/1"])}
    for name, value in parts.items():
        setattr(made, name, value)
    return made


def plan(*blocks: int) -> PrunePlan:
    return PrunePlan(num_blocks=6, blocks=list(blocks), scorer="avss", pruner="lowest")


def pruned() -> MadeUpRun:
    return report(
        plans={"avss": plan(2, 3), "gbis": plan(5, 1)},
        sizes={"original": Size(blocks=6, parameters=1000, bytes=4000)}
        | dict.fromkeys(("avss", "gbis", "avss+linear"), Size(blocks=4, parameters=800, bytes=3200)),
        healed={"avss+linear": repaired({"intact": 1.0}, 0.5)},
        metrics={
            "original": measured(190),
            "avss": measured(150),
            "gbis": measured(180),
            "avss+linear": measured(160),
        },
        footprint={"original": [Metric("", "latency_ms", 20.0, 0.5)], "gbis": [Metric("", "latency_ms", 15.0, 0.5)]},
    )


def test_a_run_has_a_row_for_each_model() -> None:
    made = pruned()
    frame = overview(made.results()).frame().set_index("model")
    model = made.results().model
    assert list(frame.index) == ["original", *model.order]
    assert frame["removed"].to_dict() == {"original": "", "avss": "2-3", "gbis": "1, 5", "avss+linear": "2-3"}
    assert frame["parameters"].to_dict() == {"original": 1000, "avss": 800, "gbis": 800, "avss+linear": 800}
    for removal in model.removals:
        assert removal.retained
        assert removal.retained.worst
        assert frame["retained"][removal.label] == removal.retained.worst.mean
    assert frame["mood acc"]["gbis"] == 0.9
    assert frame["mood acc stderr"]["gbis"] == 0.02
    assert frame["latency_ms"]["gbis"] == 15.0
    assert frame["latency_ms"].isna()["avss"]
    html = made.results()._repr_html_()
    assert "my &lt;model&gt;, 6 blocks" in html
    assert "gbis 1, 5 800 88.9% 0.9 ± 0.02 15 ± 0.5" in words(html)


def test_scores_alone_have_a_row_for_each_step() -> None:
    frame = overview(report().results()).frame()
    assert frame["step"].tolist() == [0, "0/1", 1]
    assert frame["avss"].tolist()[::2] == [3.0, 1.0]
    assert frame["gbis"].tolist()[:2] == [1.0, 2.0]
    assert frame.isna().sum().to_dict() == {"step": 0, "avss": 1, "gbis": 1}


def test_an_intact_model_has_its_metrics() -> None:
    frame = overview(report(importance={}, metrics={"original": measured(190)}).results()).frame()
    assert frame.to_dict("list") == {"model": ["my <model>"], "mood acc": [0.95], "mood acc stderr": [0.02]}


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Results:
    directory: Path = tmp_path_factory.mktemp("grid")
    layout, _ = drive(directory, Arithmetic(), repeats=2, counts=[1, 2], ratios=[], healers=["rescale"])
    with Store(directory) as store:
        return grid_results(layout, store.records())


def test_results_have_a_row_for_each_metric_of_each_contender(grid: Results) -> None:
    frame = grid.to_pandas()
    rows = [(row, entry) for row in grid.models["one"].rows for entry in row.entries.values()]
    assert frame["mean"].tolist() == [entry.value.mean for _, entry in rows]
    assert frame["task"].tolist() == [row.task for row, _ in rows]
    assert set(frame["healer"]) == {"", "rescale"}
    one = frame.query("task == 'mood' and scorer == 'avss' and healer == '' and amount == 1").iloc[0]
    assert (one["model"], one["metric"], one["original"], one["n"]) == ("one", "acc", 0.9, 2)


def test_results_show_the_tables_that_stand_first(grid: Results) -> None:
    html = grid._repr_html_()
    told = words(html)
    for table in (*summaries(grid), *removables(grid)):
        assert table.title in told
        for row in table.rows:
            assert " ".join(cell.text for cell in row) in told
    best = {cell.text for table in summaries(grid) for row in table.rows for cell in row if cell.best}
    assert {text for text in best if f"<b>{text}</b>" not in html} == set()
    assert repr(grid).startswith("Results(one; avss, avss+rescale, ")


def test_results_of_nothing_say_so(grid: Results) -> None:
    empty = grid.model_copy(update={"models": {}, "cells": {"open": 3}})
    assert "<p>Results(nothing yet; " in empty._repr_html_()
    assert "3 cells open" in empty._repr_html_()
    assert empty.to_pandas().empty

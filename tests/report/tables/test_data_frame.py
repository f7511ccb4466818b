"""All numbers of a run and of a grid, in pandas, in CSV and in notebooks."""

from __future__ import annotations

import io
import math
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.grids import Arithmetic, drive
from support.recipes import make_recipe
from support.reports import MadeUpRun, measured, repaired

from layerimp import Importance, PrunePlan
from layerimp.bench.results import grid_results
from layerimp.bench.store import Store
from layerimp.evaluator import Metric
from layerimp.report.document import Results
from layerimp.report.results.models import Size
from layerimp.report.tables import as_csv, removables, summaries
from layerimp.report.words import ranges


def words(html: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


def report(**parts: Any) -> MadeUpRun:
    made = MadeUpRun(make_recipe({"model": "my <model>", "scorers": ["avss", "gbis"]}), 6, "AutoModel")
    made.importance = {"avss": Importance([3.0, 1.0]), "gbis": Importance([1.0, 2.0], blocks=[0, 2])}
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


def test_a_run_has_a_row_for_each_number() -> None:
    made = pruned()
    frame, model = made.results().to_pandas(), made.results().model
    quality = frame.query("kind == 'quality'").set_index(["scorer", "healer", "task"])
    assert quality["mean"]["original", "", "mood"] == 0.95
    assert quality["blocks"]["original", "", "mood"] == 0
    for removal in model.removals:
        line = quality.loc[(removal.scorer, removal.healer, "mood")]
        metric = removal.models[0].metrics["mood"]["acc"]
        assert (line["mean"], line["original"], line["documents"]) == (metric.value, 0.95, 200)
        assert (line["error_low"], line["error_high"]) == metric.ends
        assert (line["amount"], line["blocks"], line["removed"]) == ("plan", 2, ranges(removal.models[0].blocks))
        assert removal.retained
        assert removal.retained.worst
        assert quality["mean"][removal.scorer, removal.healer, "retained"] == removal.retained.worst.mean
        assert line["retained"] == pytest.approx(removal.retained.worst.mean)
    sizes = frame.query("kind == 'size' and metric == 'parameters'")
    assert sizes["mean"].tolist() == [1000, 800, 800, 800]
    assert sizes["original"].tolist()[1:] == [1000] * 3
    costs = frame.query("kind == 'cost'").set_index("scorer")
    assert costs["mean"].to_dict() == {"original": 20.0, "gbis": 15.0}
    assert (costs["error_low"]["gbis"], costs["error_high"]["gbis"]) == (14.5, 15.5)
    html, by_label = made.results()._repr_html_(), {removal.label: removal for removal in model.removals}
    assert "comparison of my &lt;model&gt;, 2 of 6 blocks (33.33%) removed</caption>" in html
    retained = by_label["gbis"].retained
    assert retained
    assert retained.worst
    error = f"{retained.worst.stderr:.1%}"
    assert f"gbis 1, 5 200 (20.00%) 88.9% ± {error} 0.9000 ± 0.020 2 (33.33%) 800 (20.00%) 15 ± 0.5 (×0.75)" in words(
        html
    )


def test_scores_have_a_row_for_each_block() -> None:
    frame = report().results().to_pandas()
    assert set(frame["kind"]) == {"score"}
    by_block = frame.pivot(index="block", columns="scorer", values="mean")
    assert by_block["avss"].to_dict() == pytest.approx({0: 3.0, 1: 1.0, 2: math.nan}, nan_ok=True)
    assert by_block["gbis"].to_dict() == pytest.approx({0: 1.0, 1: math.nan, 2: 2.0}, nan_ok=True)
    assert "gbis: importance of 6 blocks</caption>" in report().results()._repr_html_()


def test_an_intact_model_has_its_metrics() -> None:
    frame = report(importance={}, metrics={"original": measured(190)}).results().to_pandas()
    (line,) = frame.to_dict("records")
    expected = {"model": "my <model>", "scorer": "original", "task": "mood", "metric": "acc", "mean": 0.95}
    assert {name: line[name] for name in expected} == expected
    assert (line["error_low"], line["error_high"]) == pytest.approx((0.93, 0.97))


def test_csv_is_the_frame(grid: Results) -> None:
    read = pd.read_csv(io.StringIO(as_csv(grid)))
    frame = grid.to_pandas()
    assert list(read.columns) == list(frame.columns)
    for name in ("mean", "low", "error_high", "original", "removed_parameters_low"):
        assert read[name].tolist() == pytest.approx(frame[name].tolist(), nan_ok=True, rel=1e-12)
    assert read["scorer"].tolist() == frame["scorer"].tolist()
    assert set(frame["amount"].dropna().map(type)) == set(frame["block"].dropna().map(type)) == {int}
    assert as_csv(grid).splitlines()[1].startswith("one,,,avss,,,,score,,score,0,,")


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Results:
    directory: Path = tmp_path_factory.mktemp("grid")
    layout, _ = drive(directory, Arithmetic(), repeats=2, counts=[1, 2], ratios=[], healers=["rescale"])
    with Store(directory) as store:
        return grid_results(layout, store.records())


def test_results_have_a_row_for_each_metric_of_each_contender(grid: Results) -> None:
    frame = grid.to_pandas().query("kind == 'quality' and scorer != 'original'")
    rows = [(row, entry) for row in grid.models["one"].rows for entry in row.entries.values()]
    assert frame["mean"].tolist() == [entry.value.mean for _, entry in rows]
    assert frame["task"].tolist() == [row.task for row, _ in rows]
    ends = [entry.ends or (math.nan, math.nan) for _, entry in rows]  # with repeats, also of what has a single model
    assert frame["error_low"].tolist() == pytest.approx([low for low, _ in ends], nan_ok=True, rel=1e-12)
    assert frame["error_high"].tolist() == pytest.approx([high for _, high in ends], nan_ok=True, rel=1e-12)
    assert set(frame["healer"]) == {"", "rescale"}
    record = frame.query("task == 'mood' and scorer == 'avss' and healer == '' and amount == 1").iloc[0]
    assert (record["model"], record["metric"], record["original"], record["n"]) == ("one", "acc", 0.9, 2)


def test_results_show_the_tables_that_stand_first(grid: Results) -> None:
    html = grid._repr_html_()
    shown = words(html)
    for table in (*summaries(grid), *removables(grid)):
        assert table.title in shown
        for row in table.rows:
            assert " ".join(map(str, row)) in shown
    best = {str(cell) for table in summaries(grid) for row in table.rows for cell in row if cell.best}
    assert {text for text in best if f"<b>{text}</b>" not in html} == set()
    assert repr(grid).startswith("Results(one; avss, avss+rescale, ")


def test_results_of_nothing_say_so(grid: Results) -> None:
    empty = grid.model_copy(update={"models": {}, "cells": {"open": 3}})
    assert re.search(r"<p>Results\(avss, .*; 3 cells open\)</p>", empty._repr_html_())
    assert empty.to_pandas().empty

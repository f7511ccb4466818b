"""A report and the findings of a grid are tables in a notebook, with the numbers of their documents."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from support.grids import Arithmetic, drive

from layerimp import Importance, PrunePlan
from layerimp.bench.findings import find
from layerimp.bench.store import Store
from layerimp.evaluator import Metric
from layerimp.recipe import make_recipe
from layerimp.report.data import Report, Size
from layerimp.report.healing import Healing
from layerimp.report.results import Findings
from layerimp.report.tables import removables, summaries


def words(html: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


def measured(right: int) -> list[Metric]:
    documents = (1.0,) * right + (0.0,) * (200 - right)
    return [Metric("mood", "acc", right / 200, 0.02, floor=0.5, documents=documents)]


def report(**parts: Any) -> Report:
    made = Report(make_recipe({"model": "my <model>", "scorers": ["avss", "gbis"]}), 6, "AutoModel")
    made.importance = {"avss": Importance([3.0, 1.0]), "gbis": Importance([1.0, 2.0], blocks=[0, "0/1"])}
    for name, value in parts.items():
        setattr(made, name, value)
    return made


def plan(*blocks: int) -> PrunePlan:
    return PrunePlan(num_blocks=6, blocks=list(blocks), scorer="avss", pruner="lowest")


def pruned() -> Report:
    return report(
        plans={"avss": plan(2, 3), "gbis": plan(5, 1)},
        sizes={"original": Size(6, 1000, 4000)} | dict.fromkeys(("avss", "gbis", "avss+linear"), Size(4, 800, 3200)),
        healed={"avss+linear": Healing("avss", "linear", [], {"intact": 1.0}, {}, 0.5)},
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
    frame = made.to_pandas().set_index("model")
    kept = made.comparison()
    assert list(frame.index) == ["original", *kept.labels]
    assert frame["removed"].to_dict() == {"original": "", "avss": "2-3", "gbis": "1, 5", "avss+linear": "2-3"}
    assert frame["parameters"].to_dict() == {"original": 1000, "avss": 800, "gbis": 800, "avss+linear": 800}
    for label in kept.labels:
        assert frame["retained"][label] == kept.retained[label].worst.mean  # type: ignore[union-attr]
    assert frame["mood acc"]["gbis"] == 0.9
    assert frame["mood acc stderr"]["gbis"] == 0.02
    assert frame["latency_ms"]["gbis"] == 15.0
    assert frame["latency_ms"].isna()["avss"]
    html = made._repr_html_()
    assert "my &lt;model&gt;, 6 blocks" in html
    assert "gbis 1, 5 800 88.9% 0.9 ± 0.02 15 ± 0.5" in words(html)


def test_scores_alone_have_a_row_for_each_step() -> None:
    frame = report().to_pandas()
    assert frame["step"].tolist() == [0, "0/1", 1]
    assert frame["avss"].tolist()[::2] == [3.0, 1.0]
    assert frame["gbis"].tolist()[:2] == [1.0, 2.0]
    assert frame.isna().sum().to_dict() == {"step": 0, "avss": 1, "gbis": 1}


def test_an_intact_model_has_its_metrics() -> None:
    frame = report(importance={}, metrics={"original": measured(190)}).to_pandas()
    assert frame.to_dict("list") == {"model": ["my <model>"], "mood acc": [0.95], "mood acc stderr": [0.02]}


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Findings:
    directory: Path = tmp_path_factory.mktemp("grid")
    layout, _ = drive(directory, Arithmetic(), repeats=2, counts=[1, 2], ratios=[], healers=["rescale"])
    with Store(directory) as store:
        return find(layout, store.records())


def test_findings_have_a_row_for_each_metric_of_each_contender(grid: Findings) -> None:
    frame = grid.to_pandas()
    rows = [(row, entry) for row in grid.models["one"].rows for entry in row.entries.values()]
    assert frame["mean"].tolist() == [entry.value.mean for _, entry in rows]
    assert frame["task"].tolist() == [row.task for row, _ in rows]
    assert set(frame["healer"]) == {"", "rescale"}
    one = frame.query("task == 'mood' and scorer == 'avss' and healer == '' and ratio == 1").iloc[0]
    assert (one["model"], one["metric"], one["original"], one["n"]) == ("one", "acc", 0.9, 2)


def test_findings_show_the_tables_that_stand_first(grid: Findings) -> None:
    html = grid._repr_html_()
    told = words(html)
    for table in (*summaries(grid), *removables(grid)):
        assert table.title in told
        for row in table.rows:
            assert " ".join(cell.text for cell in row) in told
    best = {cell.text for table in summaries(grid) for row in table.rows for cell in row if cell.rank == 1}
    assert {text for text in best if f"<b>{text}</b>" not in html} == set()
    assert repr(grid).startswith("Findings(one; avss, avss+rescale, ")


def test_findings_of_nothing_say_so(grid: Findings) -> None:
    empty = Findings(grid.design, {}, {"open": 3}, [], 0.0)
    assert "<p>Findings(nothing yet; " in empty._repr_html_()
    assert "3 cells open" in empty._repr_html_()
    assert empty.to_pandas().empty

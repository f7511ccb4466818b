"""The findings and tables of a grid, against arithmetic by hand."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter
from scipy import stats
from support.grids import BLOCKS, DOCUMENTS, Arithmetic, computed, drive

from layerimp.bench.cell_graph import Layout
from layerimp.bench.cells import Cell, Result
from layerimp.bench.findings import find
from layerimp.bench.store import Store
from layerimp.cli.tables import paper
from layerimp.report import schema
from layerimp.report.findings import Findings, Row
from layerimp.report.formats import as_csv, as_latex, as_markdown
from layerimp.report.html.page import page
from layerimp.report.json_export import as_document
from layerimp.report.statistics import interval
from layerimp.report.tables import number, paper_tables, summaries

RATIO = 0.25
REMOVED = BLOCKS // 4


@pytest.fixture
def found(tmp_path: Path) -> Findings:
    return findings(tmp_path, repeats=3)


def findings(directory: Path, what: Callable[[Cell], Result] = computed, **changes: Any) -> Findings:
    drive(directory, Arithmetic(what=what), **changes)
    with Store(directory, write=False) as store:
        layout = store.layout()
        assert layout
        return find(Layout.model_validate(layout), store.records())


def row(found: Findings, task: str, ratio: float = RATIO) -> Row:
    (one,) = [each for each in found.models["one"].rows if (each.task, each.ratio) == (task, ratio)]
    return one


@pytest.fixture
def layout(found: Findings, tmp_path: Path) -> Layout:
    """The grid that `found` is of."""
    with Store(tmp_path, write=False) as store:
        return Layout.model_validate(store.layout())


def test_every_number_of_a_row_by_hand(found: Findings, layout: Layout) -> None:
    one = row(found, "mood")
    values: dict[str, list[float]] = {}
    for scorer in layout.scorers:
        for draw in layout.draws(scorer):
            scores = computed(layout.scoring("one", scorer, draw))["scores"]
            weakest = sorted(range(BLOCKS), key=lambda block: (scores[block], -block))[:REMOVED]
            values.setdefault(scorer, []).append(0.9 - sum(block + 1 for block in weakest) / 100)
    assert one.entries.keys() == values.keys()
    for scorer, entry in one.entries.items():
        assert list(entry.values) == pytest.approx(values[scorer])
    avss = one.entries["avss"]
    assert avss.value.mean == pytest.approx(sum(values["avss"]) / 3)
    assert avss.retention
    assert avss.retention.mean == pytest.approx(sum(value / 0.9 for value in values["avss"]) / 3)
    assert avss.retained
    assert avss.retained.mean == pytest.approx(sum((value - 0.5) / 0.4 for value in values["avss"]) / 3)
    # A document is correct in all, some or none of a scorer's repeats: the spread of this, and of the difference.
    right = {s: np.array([np.arange(DOCUMENTS) < round(100 * v) for v in values[s]]).mean(axis=0) for s in values}
    assert avss.ends
    spread = right["avss"].std(ddof=1) / math.sqrt(DOCUMENTS)
    assert (avss.ends[1] - avss.ends[0]) / 2 == pytest.approx(spread, rel=0.05)
    welch = stats.ttest_ind(values["avss"], values["random"], equal_var=False).confidence_interval(0.95)
    paired = (right["avss"] - right["random"]).std(ddof=1) / math.sqrt(DOCUMENTS)
    half = math.hypot((welch.high - welch.low) / 2, stats.t.ppf(0.975, DOCUMENTS - 1) * paired)
    assert avss.to_random
    assert avss.to_random.high is not None
    assert avss.to_random.high - avss.to_random.mean == pytest.approx(half, rel=0.02)
    assert one.baselines[""] == max(
        ("random", "depth", "block-influence"), key=lambda name: sum(values[name]) / len(values[name])
    )
    assert one.removed_blocks == REMOVED / BLOCKS
    assert one.removed_parameters == pytest.approx((10 * REMOVED / 180,) * 2)


def test_what_is_retained_has_no_unit_and_no_chance(found: Findings) -> None:
    worst, likelihood, accuracy = [one for one in found.models["one"].rows if one.task == "retained"]
    assert [one.metric for one in (worst, likelihood, accuracy)] == ["worst", "likelihood", "accuracy"]
    assert found.models["one"].headlines == [worst]
    mood, prose = row(found, "mood"), row(found, "prose")
    for scorer in worst.entries:
        informed = [(math.log(100) - math.log(value)) / math.log(10) for value in prose.entries[scorer].values]
        right = [max(0.0, (value - 0.5) / 0.4) for value in mood.entries[scorer].values]
        assert list(likelihood.entries[scorer].values) == pytest.approx(informed)
        assert list(accuracy.entries[scorer].values) == pytest.approx(right)
        lower = min(informed, right, key=sum)
        assert list(worst.entries[scorer].values) == pytest.approx(lower)
    document = as_document(found)["models"]["one"]["retained"][0]
    assert document["retained_worst"] == {s: one.value.mean for s, one in worst.entries.items()}
    assert document["retained_likelihood"] == {s: one.value.mean for s, one in likelihood.entries.items()}
    assert document["retained"]["avss"]["mood"] == pytest.approx(mood.entries["avss"].retained.mean)


def test_perplexities_are_averaged_and_compared_as_losses(found: Findings) -> None:
    one = row(found, "prose")
    entry, random = one.entries["avss"], one.entries["random"]
    losses = [math.log(value) for value in entry.values]
    assert entry.value.mean == pytest.approx(math.exp(sum(losses) / len(losses)))
    assert entry.value.high
    assert entry.value.low
    assert entry.value.high / entry.value.mean == pytest.approx(entry.value.mean / entry.value.low)
    assert entry.to_random
    assert one.factors
    assert math.exp(entry.to_random.mean) == pytest.approx(entry.value.mean / random.value.mean)


def test_cells_from_before_documents_were_kept_stay_readable(tmp_path: Path) -> None:
    def old(cell: Cell) -> Result:
        result = dict(computed(cell))
        if cell.kind == "evaluation":
            kept = ("task", "name", "value", "stderr", "higher_is_better")
            result["metrics"] = [{name: one[name] for name in kept} for one in result["metrics"]]
            del result["arrays"]
        return result

    found = findings(tmp_path, old, repeats=3)
    assert row(found, "mood").entries["avss"].retention
    assert [one.metric for one in found.models["one"].rows] == ["acc", "perplexity", "accuracy"]
    assert any("so compared as if on different ones" in note for note in found.notes)
    assert as_markdown(found).count("| prose ") == 1
    assert as_document(found)["models"]["one"]["retained"][0]["retained"]["avss"]["prose"] is None


def _harm(values: dict[str, float]) -> Callable[[Cell], Result]:
    """An engine for which each scorer's first block does so much harm, and whose documents are without error."""

    def what(cell: Cell) -> Result:
        if cell.kind == "scoring":
            first = list(values).index(cell.content["scorer"])
            scores = [1.0 + (block != first) for block in range(BLOCKS)]
            return {"scores": scores, "blocks": list(range(BLOCKS)), "columns": {}, "spans": {}, "notes": []}
        if cell.kind == "evaluation":
            names = [list(values)[block] for block in cell.content["blocks"]]
            metric = {
                "task": cell.content["task"],
                "name": "acc",
                "value": 0.9 - sum(values[name] for name in names),
                "stderr": 0.001,
                "higher_is_better": True,
            }
            left = BLOCKS - len(names)
            return {"metrics": [metric], "size": {"blocks": left, "parameters": left, "bytes": left}}
        return computed(cell)

    return what


def ranks(found: Findings) -> dict[str, int | None]:
    return {scorer: entry.rank for scorer, entry in row(found, "mood", 1).entries.items()}


def test_only_a_significant_winner_is_marked(tmp_path: Path) -> None:
    clear = _harm({"avss": 0.1, "gbis": 0.2, "random": 0.3, "depth": 0.3, "block-influence": 0.4})
    assert ranks(findings(tmp_path / "1", clear, counts=[1], tasks=["mood"])) == {
        "avss": 1,
        "gbis": 2,
        "random": None,
        "depth": None,
        "block-influence": None,
    }
    # The two best are within the errors of the documents: neither is marked, nor can another be second.
    close = _harm({"avss": 0.1, "gbis": 0.1001, "random": 0.3, "depth": 0.3, "block-influence": 0.4})
    assert set(ranks(findings(tmp_path / "2", close, counts=[1], tasks=["mood"])).values()) == {None, 2}


def test_scorers_that_remove_the_same_share_a_place(tmp_path: Path) -> None:
    clear = _harm({"avss": 0.1, "gbis": 0.2, "random": 0.3, "depth": 0.3, "block-influence": 0.4})
    scorers = {"avss": None, "twin": {"name": "avss"}, "gbis": None}
    found = ranks(findings(tmp_path, clear, counts=[1], tasks=["mood"], scorers=scorers))
    assert (found["avss"], found["twin"], found["gbis"]) == (1, 1, 2)


def test_a_broken_model_has_an_infinite_perplexity_and_no_interval(tmp_path: Path) -> None:
    def broken(cell: Cell) -> Result:
        result = computed(cell)
        if cell.kind == "evaluation" and cell.content["task"] == "prose" and len(cell.content["blocks"]) > 2:
            result["metrics"][0] |= {"value": math.inf, "likelihood": None}
        return result

    found = findings(tmp_path, broken, repeats=2, counts=[1], ratios=[0.5])
    entry = row(found, "prose", 0.5).entries["avss"]
    assert (entry.value.mean, entry.value.high, entry.rank) == (math.inf, None, None)
    assert entry.retention
    assert entry.retention.mean == 0
    assert "∞" in as_markdown(found)
    document = json.dumps(as_document(found), allow_nan=False)
    TypeAdapter(schema.DOCUMENTS["layerimp.findings/2"]).validate_json(document, strict=True)


def test_what_is_not_known_yet_is_left_out(tmp_path: Path) -> None:
    def stopped(cell: Cell) -> Result:
        if cell.kind == "evaluation" and cell.content["blocks"]:
            raise KeyboardInterrupt
        return computed(cell)

    with pytest.raises(KeyboardInterrupt):
        findings(tmp_path, stopped)
    with Store(tmp_path, write=False) as store:
        found = find(Layout.model_validate(store.layout()), store.records())
    assert found.models["one"].rows == []
    assert found.cells["open"] > 0
    assert paper_tables(found) == []
    assert as_csv(found).count("\n") == 1


def test_stability_and_agreement(found: Findings, layout: Layout) -> None:
    model = found.models["one"]
    assert model.stability["lowest", RATIO, "random"].same < 1
    assert ("lowest", RATIO, "depth") not in model.stability
    scores = [computed(layout.scoring("one", "avss", draw))["scores"] for draw in range(3)]
    others = [computed(layout.scoring("one", "gbis", draw))["scores"] for draw in range(3)]
    taus = [stats.kendalltau(one, other).statistic for one in scores for other in others]
    assert model.agreement["avss", "gbis"] == pytest.approx(sum(taus) / len(taus))
    assert model.scored["avss"].cost == 1.5
    assert model.scored["depth"].cost == 0
    assert list(model.scored["avss"].means) == [interval(values) for values in zip(*scores, strict=True)]


def test_the_tables_have_the_layout_of_the_paper(found: Findings) -> None:
    (table,) = paper_tables(found)
    assert table.title == "lowest, 25%"
    assert table.head == [
        *("data set", "model", "metric", "original", "avss", "gbis", "random", "depth", "block-influence"),
        "parameter reduction",
    ]
    assert [cells[0].text for cells in table.rows] == ["mood (n = 100)", "prose (n = 100)", *["retained"] * 3]
    assert table.rows[0][-1].text == "25.0% of blocks, 11.1% of parameters"
    markdown = as_markdown(found)
    assert markdown.count("\n| mood ") == 1
    assert as_latex(found).count("&") == 6 * (len(table.head) - 1)
    rows = list(csv.DictReader(io.StringIO(as_csv(found))))
    assert float(rows[0]["avss"]) == row(found, "mood").entries["avss"].value.mean
    assert float(rows[0]["avss_low"]) < float(rows[0]["avss"]) < float(rows[0]["avss_high"])
    assert rows[0]["depth_low"] == ""


def test_marks_in_every_format(tmp_path: Path) -> None:
    clear = _harm({"avss": 0.1, "gbis": 0.2, "random": 0.3, "depth": 0.3, "block-influence": 0.4})
    found = findings(tmp_path, clear, counts=[1], tasks=["mood"])
    assert "**0.8000 (0.0010)**" in as_markdown(found)
    assert "<u>0.7000 (0.0010)</u>" in as_markdown(found)
    assert r"\textbf{0.8000 (0.0010)}" in as_latex(found)
    assert r"\underline{0.7000 (0.0010)}" in as_latex(found)


def _with_seams(cell: Cell) -> Result:
    """As always, but `avss` scores a seam as well, and least."""
    if cell.kind == "scoring" and cell.content["scorer"] == "avss":
        scores = [float(block) for block in range(BLOCKS)]
        return dict(computed(cell)) | {"scores": [*scores, -1.0], "blocks": [*range(BLOCKS), "4/5"]}
    if cell.kind == "evaluation" and "4/5" in cell.content["blocks"]:
        content = dict(cell.content) | {"blocks": [4 if step == "4/5" else step for step in cell.content["blocks"]]}
        return computed(replace(cell, content=content))
    return computed(cell)


def test_a_grid_holds_seams(tmp_path: Path) -> None:
    found = findings(tmp_path, _with_seams, counts=[1, 2], ratios=[], repeats=2)
    model = found.models["one"]
    assert model.num_blocks == BLOCKS
    assert [one.blocks for one in model.pruned["lowest", 2, "avss"]] == [("4/5", 0)] * 2
    assert model.stability["lowest", 2, "avss"].same == 1
    assert {len(scores) for one in model.scored.values() for scores in one.scores} == {BLOCKS}
    assert row(found, "mood", 2).entries["avss"].values == pytest.approx([0.9 - 6 / 100] * 2)
    document = json.dumps(as_document(found), allow_nan=False)
    TypeAdapter(schema.DOCUMENTS["layerimp.findings/2"]).validate_json(document, strict=True)
    assert '"blocks": [["4/5", 0], ["4/5", 0]]' in document
    whole = page(found)
    assert whole.count("A block of which a half goes, with a seam, counts half.") == 1
    assert "avss, block 4: 50% removed" in whole
    with Store(tmp_path, write=False) as store:
        names = {name for (name,) in store._connection.execute("SELECT name FROM cells WHERE kind = 'evaluation'")}
    assert {"evaluate mood on one without seam 4/5", "evaluate mood on one without 0, 4/5"} < names


def test_a_cell_is_named_by_what_is_gone(layout: Layout) -> None:
    measure = layout.models["one"].measures[0]
    keys = {layout.evaluation("one", steps, measure).key for steps in ((3, "1/2"), ("2.attn,1.mlp", 3), ("1/2", 3))}
    assert len(keys) == 1
    assert layout.evaluation("one", (3, 1), measure).content["blocks"] == [1, 3]  # as it always was


def test_latex_is_plain_text(found: Findings) -> None:
    assert "−" in as_markdown(found)
    assert as_latex(found).isascii()


def test_the_summary_has_a_line_for_each_scorer(tmp_path: Path) -> None:
    found = findings(tmp_path, counts=[1], ratios=[0.5], repeats=2)
    (table,) = summaries(found)
    assert table.head == ["scorer", "1 block", "50%"]
    means = {
        scorer: sum(one.entries[scorer].value.mean for one in found.models["one"].headlines)
        for scorer in found.design.scorers
    }
    assert [line[0].text for line in table.rows] == sorted(means, key=lambda scorer: -means[scorer])


def test_a_wide_table_is_printed_in_parts_that_fit(found: Findings) -> None:
    (table,) = paper_tables(found)
    assert len(paper(table, lambda _: True)) == 1
    parts = paper(table, lambda part: len(part.columns) <= 5)
    names = [str(column.header) for part in parts for column in part.columns[3:]]
    assert names == [*table.head[3:-1]]
    assert all([str(column.header) for column in part.columns[:3]] == ["data set", "model", "metric"] for part in parts)


def test_names_from_outside_break_no_table(tmp_path: Path) -> None:
    found = findings(tmp_path, models={"a_b": "one"}, tasks=["mood"], scorers={"x_y": {"name": "avss"}})
    assert r"a\_b" in as_latex(found)
    assert r"x\_y" in as_latex(found)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.0, "0.000"),
        (0.9, "0.9000"),
        (12.3456, "12.35"),
        (123456.7, "123457"),
        (4.7e9, "4.700e+09"),
        (1e-5, "1.000e-05"),
        (math.inf, "∞"),
    ],
)
def test_numbers_are_short(value: float, said: str) -> None:
    assert number(value) == said


def test_repeats_that_read_the_same_text_are_said(tmp_path: Path) -> None:
    def little(cell: Cell) -> Result:
        result = dict(computed(cell))
        if cell.kind == "scoring" and cell.content["calibration"]:
            result["calibration"] = {"fingerprint": str(cell.seed % 2)}
        return result

    note = findings(tmp_path / "little", little, repeats=3).notes[0]
    assert "3 draws of calibration text gave 2 different ones" in note
    assert findings(tmp_path / "enough", little, repeats=2).notes == []


def _all_cuts(cell: Cell) -> Result:
    """As always, but every scorer scores all seams as well, and most of all but one; no seam costs anything."""
    if cell.kind == "scoring":
        assert cell.content["cuts"] == "all"
        found = dict(computed(cell))
        steps = [step for block in range(BLOCKS) for step in (block, f"{block}/{block + 1}")][:-1]
        scores = [found["scores"][step] if isinstance(step, int) else 20.0 for step in steps]
        scores[steps.index("4/5")] = -1.0
        return found | {"scores": scores, "blocks": steps}
    content = dict(cell.content)
    if cell.kind == "evaluation":
        content["blocks"] = [step for step in content["blocks"] if isinstance(step, int)]
    return computed(replace(cell, content=content))


def test_a_grid_of_all_cuts(tmp_path: Path) -> None:
    found = findings(tmp_path, _all_cuts, counts=[1, 2], ratios=[], repeats=2, cuts="all")
    model = found.models["one"]
    steps = model.scored["avss"].steps
    assert (model.num_blocks, len(steps), steps[:3]) == (BLOCKS, 2 * BLOCKS - 1, [0, "0/1", 1])
    assert {len(scores) for one in model.scored.values() for scores in one.scores} == {len(steps)}
    assert [one.blocks[0] for one in model.pruned["lowest", 2, "avss"]] == ["4/5"] * 2
    document = as_document(found)
    text = json.dumps(document, allow_nan=False)
    TypeAdapter(schema.DOCUMENTS["layerimp.findings/2"]).validate_json(text, strict=True)
    assert document["models"]["one"]["scorers"]["avss"]["steps"] == list(steps)
    assert document["grid"]["cuts"] == "all"
    whole = page(found)
    assert re.search(r"avss, seam 4/5: score -1[^,]*, rank 0.00, removed in 100% of repeats", whole)
    assert re.search(r"avss, block 4: score [^,]*, rank [^,]*, removed in 0% of repeats", whole)
    assert "Heat map of the importance of 8 blocks and 7 seams" in whole
    assert "Between two blocks stands the seam that lies there. Crossed: blocks and seams that go" in whole
    assert "<dt>Cuts</dt>" in whole

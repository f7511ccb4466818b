"""How many blocks may be removed at 90, 95 and 99 %, against results worked out by hand."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import pytest
from scipy import stats
from support.grids import BLOCKS, Arithmetic, computed, drive, harm_of
from support.made_up_grids import part
from support.published import checked

from layerimp.bench.cell_graph import Layout
from layerimp.bench.results import grid_results
from layerimp.bench.store import Store
from layerimp.report.document import Results
from layerimp.report.page import page
from layerimp.report.page.charts import Charts
from layerimp.report.results.measures import Interval
from layerimp.report.results.rows import Removable
from layerimp.report.retained import removable
from layerimp.report.tables import as_csv, as_latex, as_markdown, notes, removables
from layerimp.report.words import removable_at


def test_the_largest_number_up_to_which_all_that_was_measured_holds() -> None:
    measured, levels = removable(
        [{1: 0.995, 2: 0.96, 4: 0.94, 6: 0.97}, {1: 0.99, 2: 0.95, 4: 0.92, 6: 0.2}, {1: 0.5, 2: 1, 4: 1}]
    )
    assert measured == [1, 2, 4]  # 6 was not measured in every repeat
    assert {share: list(level.counts) for share, level in levels.items()} == {
        0.9: [4, 4, 0],  # a curve that rises again does not count from where it failed
        0.95: [2, 2, 0],
        0.99: [1, 1, 0],
    }
    assert [level.at_least for level in levels.values()] == [True, False, False]
    two = levels[0.95].mean
    half = float(stats.t.ppf(0.975, 2)) * float(stats.sem([2, 2, 0]))
    assert two.mean == pytest.approx(4 / 3)
    assert two.high == pytest.approx(4 / 3 + half)
    assert two.low == 0.0  # no fewer than none


def test_what_is_said() -> None:
    _, levels = removable([{1: 1.0, 2: 0.97}, {1: 1.0, 2: 0.93}])
    assert removable_at(levels[0.9]) == "≥ 2"
    assert removable_at(levels[0.95]).startswith("≥ 1.5")
    assert removable_at(levels[0.99]) == "1"
    _, single = removable([{1: 0.96, 2: 0.91, 3: 0.8}])
    assert [removable_at(level) for level in single.values()] == ["2", "1", "0"]
    assert removable([]) == removable([{}, {1: 0.9}]) == ([], {})


def test_a_sum_that_is_rounded_still_holds() -> None:
    _, levels = removable([{1: 0.95 - 1e-12}])
    assert list(levels[0.95].counts) == [1]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("grid")


@pytest.fixture(scope="module")
def layout(place: Path) -> Layout:
    return drive(place, Arithmetic(), counts=[1, 2, 3, 5], ratios=[], repeats=3, healers=["linear"])[0]


@pytest.fixture(scope="module")
def results(layout: Layout, place: Path) -> Results:
    with Store(place, write=False) as store:
        return grid_results(layout, store.records())


def kept(blocks: list[int]) -> float:
    """The lower of the retained accuracy and likelihood in these simulated grids."""
    harm = harm_of(blocks)
    right = max(0.0, (0.9 - harm / 100 - 0.5) / 0.4)
    informed = max(0.0, (math.log(100) - math.log(10 + harm)) / math.log(10))
    return min(right, informed)


def test_a_grid_says_how_many_may_go(results: Results, layout: Layout) -> None:
    limits = results.models["one"].removable
    for scorer in ("avss", "random", "depth"):
        limit = limits["lowest", scorer]
        assert limit.measured == [1, 2, 3, 5]
        for share, level in limit.levels.items():
            expected = []
            for draw in layout.draws(scorer):
                scores = computed(layout.scoring("one", scorer, draw))["scores"]
                order = sorted(range(BLOCKS), key=lambda block: (scores[block], -block))
                holding = [count for count in (1, 2, 3, 5) if kept(order[:count]) >= share]
                expected.append(max(holding, default=0))  # in this world the curves fall
            assert list(level.counts) == expected
    assert any(sum(level.counts) for limit in limits.values() for level in limit.levels.values())
    assert ("lowest", "avss+linear") in limits


def test_it_is_in_every_format(results: Results) -> None:
    (table,) = removables(results)
    assert table.heads == ["scorer", "90% retained", "95% retained", "99% retained"]
    first = {row[0].value: row[2].value for row in table.rows}
    means = [results.models["one"].removable["lowest", label].levels[0.95].mean.mean for label in first]
    assert means == sorted(means, reverse=True)
    assert f"## {table.title}" in as_markdown(results)
    assert "\\begin{tabular}{lrrr}" in as_latex(results)
    assert "\\begin{tabular}{llr" in as_latex(results)
    assert r"$\geq$" in as_latex(results)
    assert as_latex(results).isascii()
    assert any(line.startswith("removable: ") for line in notes([table]))
    lines = [line for line in csv.DictReader(io.StringIO(as_csv(results))) if line["kind"] == "removable"]
    lines = [line for line in lines if (line["scorer"], line["healer"]) == ("avss", "")]
    assert [line["metric"] for line in lines] == ["90% retained", "95% retained", "99% retained"]
    middle = results.models["one"].removable["lowest", "avss"].levels[0.95]
    assert float(lines[1]["mean"]) == middle.mean.mean
    document = checked(json.dumps(results.model_dump(mode="json")))
    entries = {entry["label"]: entry for entry in document["models"]["one"]["removables"]}
    assert entries["avss"]["levels"]["0.95"]["counts"] == list(middle.counts)
    written = page(results)
    assert "<h3>How many blocks may go</h3>" in written
    shown = part(written, "How many blocks may go")
    assert removable_at(middle).replace(" ", "\N{NO-BREAK SPACE}", 1) in shown or removable_at(middle) in shown


def test_a_bound_is_named_and_has_no_interval(results: Results) -> None:
    measured, levels = removable([{1: 1.0, 2: 0.97}, {1: 1.0, 2: 0.93}])
    one = Removable(pruner="lowest", label="avss", measured=measured, levels=levels)
    model = results.models["one"].model_copy(update={"removables": [one]})
    frame = results.model_copy(update={"models": {"one": model}}).to_pandas().query("kind == 'removable'")
    assert frame["mean"].tolist() == [2, 1.5, 1]
    assert frame["at_least"].tolist() == [True, True, False]
    assert frame["low"].fillna(-1).tolist() == frame["high"].fillna(-1).tolist() == [-1, -1, 1]


def test_a_tie_is_broken_in_the_same_way_in_the_table_and_on_the_page(results: Results) -> None:
    def one(label: str, *counts: int) -> Removable:
        _, levels = removable([{1: 1.0, 2: 1.0}])
        changed = {
            share: levels[share].model_copy(update={"mean": Interval(mean=count, low=None, high=None, count=1)})
            for share, count in zip((0.9, 0.95, 0.99), counts, strict=True)
        }
        return Removable(pruner="lowest", label=label, measured=[1, 2, 3], levels=changed)

    tied = [one("less", 2, 2, 1), one("last", 2, 2, 0), one("first", 3, 2, 0), one("none", 3, 1, 1)]
    model = results.models["one"].model_copy(update={"removables": tied})
    (table,) = removables(results.model_copy(update={"models": {"one": model}}))
    ((chart, _),) = Charts(model).removable
    assert [row[0].value for row in table.rows] == list(chart.rows) == ["first", "less", "last", "none"]


def test_a_single_number_says_nothing_of_how_many_may_go(tmp_path: Path) -> None:
    layout, _ = drive(tmp_path, Arithmetic(), counts=[2], ratios=[], repeats=2)
    with Store(tmp_path, write=False) as store:
        single = grid_results(layout, store.records())
    assert not single.models["one"].removable
    assert removables(single) == []
    assert "removable" not in as_markdown(single)
    assert "How many blocks may go" not in page(single)

"""The tables of models, of a run and of a grid: their layout, their marks and their numbers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.grids import findings, harming
from support.reports import MadeUpRun, model_of, report, without_two_blocks

from layerimp._table import Table
from layerimp.metric import Metric
from layerimp.pruner import PrunePlan
from layerimp.report import words
from layerimp.report.document import Results
from layerimp.report.page import page
from layerimp.report.tables import as_latex, as_markdown, fidelity, first, notes, quality, summaries
from layerimp.report.tables.data_frame import COST, SIZE
from layerimp.report.tables.models import REMOVED, scores, side_by_side


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return findings(tmp_path_factory.mktemp("grid"), repeats=3)


def test_the_tables_have_the_layout_of_the_paper(grid: Results) -> None:
    (table,) = quality(grid)
    assert table.title == "quality of one, lowest, 25% (25.0% of blocks, 11.1% of parameters)"
    assert table.heads == ["data set", "metric", "original", "avss", "gbis", "random", "depth", "block-influence"]
    assert table.naming == 2
    assert [str(row[0]) for row in table.rows] == ["mood (n = 100)", "prose (n = 100)", *["retained"] * 3]
    assert [cell.value for cell in table.columns[2].cells] == [0.9, 10.0, None, None, None]
    assert [str(cell) for cell in table.columns[2].cells] == ["0.9000 (0.030)", "10.00 (0.13)", "", "", ""]
    entries = [each.entries["avss"] for each in grid.model.rows]
    assert [cell.value for cell in table.columns[3].cells] == [entry.value.mean for entry in entries]
    assert [cell.best for cell in table.columns[3].cells] == [entry.best for entry in entries]
    markdown = as_markdown(grid)
    assert markdown.count("\n| mood ") == 1
    shown = [table, *fidelity(grid)]
    assert as_latex(grid).count("&") == sum((len(each.rows) + 1) * (len(each.heads) - 1) for each in shown)


def test_several_models_have_a_column(tmp_path: Path) -> None:
    results = findings(tmp_path, models={"one": "one", "two": "two"}, counts=[1], ratios=[])
    (table,) = quality(results)
    assert table.title.startswith("quality, lowest, 1 block (")
    assert table.heads[:4] == ["data set", "model", "metric", "original"]
    assert [str(row[1]) for row in table.rows] == ["one"] * 5 + ["two"] * 5


def test_only_repeats_have_brackets(tmp_path: Path) -> None:
    """With one repeat ± is the standard error over the documents, which is that of the metric itself."""
    (once,), (thrice,) = (quality(findings(tmp_path / str(n), repeats=n)) for n in (1, 3))
    assert str(once.rows[0][2]) == "0.9000 ± 0.030"
    assert str(once.rows[0][3]).endswith("± 0.030")
    assert notes([once])[0] == "± one standard error over the documents"
    assert str(thrice.rows[0][2]) == "0.9000 (0.030)"
    assert re.fullmatch(r"0\.\d{4} ± 0\.\d+ \(0\.0\d+\)", str(thrice.rows[0][3]))


def test_draws_without_repeats_have_their_own_error(tmp_path: Path) -> None:
    """Without repeats `random` is still drawn ten times: its mean does not get the error of its first draw."""
    results = findings(tmp_path, repeats=1, tasks=["mood"])
    frame = results.to_pandas().query("scorer == 'random' and task == 'mood'").iloc[0]
    assert frame["n"] == 10
    assert frame["error_low"] < frame["mean"] < frame["error_high"]
    half, error = frame["high"] - frame["mean"], frame["error_high"] - frame["mean"]
    shown = f"{words.number(frame['mean'])} ± {words.two_digits(half)} ({words.two_digits(error)})"
    (table,) = quality(results)
    assert str(table.rows[0][table.heads.index("random")]) == shown
    assert notes([table])[1].startswith("random: mean ± half of the 95 % confidence interval over the repeats")
    (line,) = (row for row in beside(results).rows if str(row[0]) == "random")
    assert shown in map(str, line)
    assert str(line[1]) == "", "not the blocks of the first draw"
    assert "of random, drawn several times, it is half of the 95 % interval over the draws" in page(results)


def test_marks_in_every_format(tmp_path: Path) -> None:
    clear = harming({"avss": 0.1, "gbis": 0.2, "random": 0.3, "depth": 0.3, "block-influence": 0.4})
    results = findings(tmp_path, clear, counts=[1], ratios=[], repeats=2, tasks=["mood"])
    assert as_markdown(results).count("**") == 2 * 2, "of the task, and of what is retained"
    assert "**0.8000 (0.0010)**" in as_markdown(results)
    assert as_latex(results).count(r"\textbf") == 2
    assert r"\textbf{0.8000 (0.0010)}" in as_latex(results)


def test_latex_is_plain_text(grid: Results) -> None:
    assert "−" in as_markdown(grid)
    assert as_latex(grid).isascii()


def test_the_summary_has_a_line_for_each_scorer(tmp_path: Path) -> None:
    results = findings(tmp_path, counts=[1], ratios=[0.5], repeats=2)
    (table,) = summaries(results)
    share = results.models["one"].headlines[0].removed_parameters[0]
    assert table.heads[:2] == ["scorer", f"1 block, {share:.1%} of parameters"]
    assert re.fullmatch(r"50% of blocks, \d+\.\d% of parameters", table.heads[2])
    means = {
        scorer: sum(row.entries[scorer].value.mean for row in results.models["one"].headlines)
        for scorer in results.design.scorers
    }
    assert [line[0].value for line in table.rows] == sorted(means, key=lambda scorer: -means[scorer])


def test_names_from_outside_break_no_table(tmp_path: Path) -> None:
    results = findings(tmp_path, models={"a_b": "one"}, tasks=["mood"], scorers={"x_y": {"name": "avss"}})
    assert r"a\_b" in as_latex(results)
    assert r"x\_y" in as_latex(results)


def beside(results: Results) -> Table:
    return side_by_side(results, results.model)


def shown_in(table: Table, head: str) -> list[str]:
    """The cells of a column."""
    return [str(cell) for column in table.columns if column.head == head for cell in column.cells]


def test_a_run_has_its_models_side_by_side() -> None:
    results = report().results()
    table = beside(results)
    assert table.title == "comparison of tiny, 2 of 4 blocks (50.00%) removed"
    assert table.heads == [
        *("model", "removed blocks", "parameters removed"),
        *("retained accuracy", "sst2 acc ↑", "wikitext word_perplexity ↓"),
        *("number of blocks", "bytes removed", "bytes"),
    ]
    assert [str(cell) for cell in table.rows[0]] == ["original", "", "", "", "0.8000 ± 0.010", "20.00", "", "", "4,000"]
    assert [str(cell) for cell in table.rows[1]] == [
        *("paper", "0, 2", "400 (40.00%)", "75.0% ± 2.7%", "0.6000 ± 0.020", "40.00"),
        *("2 (50.00%)", "1,600 (40.00%)", "2,400 (×0.60)"),
    ]
    removed = table.of(REMOVED, SIZE, title="removed")
    assert removed.heads == ["model", "removed blocks", "parameters removed", "number of blocks", "bytes removed"]
    assert [row[0].value for row in removed.rows] == ["paper"], "a row that has nothing is left out"
    assert table.of(COST, title="footprint").heads == ["model", "bytes"]
    assert table.without(SIZE, COST).heads == table.heads[:6]


def test_a_single_pruned_model_has_a_row_for_each_metric() -> None:
    (table,) = quality(report().results())
    assert table.title == "quality of tiny, lowest, blocks of the plan (50.0% of blocks, 40.0% of parameters)"
    assert table.heads == ["data set", "metric", "original", "paper", "retained"]
    assert [str(cell) for cell in table.rows[0]] == ["sst2", "acc ↑", "0.8000 ± 0.010", "0.6000 ± 0.020", "75.0%"]


def test_what_is_removed_is_named() -> None:
    made = without_two_blocks()
    made.plans = {"paper": PrunePlan(num_blocks=6, blocks=[5, 4])}
    table = beside(made.results())
    assert table.title == "comparison of tiny, 2 of 6 blocks (33.33%) removed, first 20 documents"
    assert shown_in(table, "removed blocks") == ["", "4-5"]


def test_a_model_alone_has_its_own_name(tmp_path: Path) -> None:
    """Beside pruned models the intact one is `original`; a checkpoint that is evaluated by itself is not."""
    (tmp_path / "healed").mkdir()
    for model, name in ((str(tmp_path / "healed"), "healed"), ("org/model", "org/model")):
        made = report(model=model)
        (table,) = quality(made.results())
        assert table.heads == ["data set", "metric", "original", "paper", "retained"]
        del made.sizes["paper"], made.metrics["paper"], made.footprint["paper"], made.plans["paper"]
        (table,) = quality(made.results())
        assert table.heads == ["data set", "metric", name]
        assert shown_in(beside(made.results()), "model") == [name]
        assert beside(made.results()).title == f"{name.split('/')[-1]}, 4 blocks"
        assert set(made.results().model.metrics) == {"sst2", "wikitext"}, "a program finds it in the same place"


def a_selection() -> MadeUpRun:
    """A run measured on a group of one task near its floor, one that is not, and a group of two."""

    def metrics(*values: float) -> list[Metric]:
        near, far, ant, bee = values
        parts = [
            Metric("near", "acc", near, 0.02, floor=0.5),
            Metric("far", "acc", far, 0.02, floor=0.5),
            Metric("pairs", "acc", (ant + bee) / 2, 0.02, floor=0.5, members=("ant", "bee")),
            Metric("ant", "acc", ant, 0.02, floor=0.5),
            Metric("bee", "acc", bee, 0.02, floor=0.5),
        ]
        mean = sum(metric.value for metric in parts[:3]) / 3
        inside = ("near", "far", "pairs", "ant", "bee")
        return [Metric("selection", "accuracy", mean, 0.01, floor=0.5, members=inside), *parts]

    made = report(limit=200, limits={"pairs": 20})
    made.metrics = {"original": metrics(0.53, 0.9, 0.8, 0.7), "paper": metrics(0.5, 0.7, 0.6, 0.6)}
    return made


def test_a_selection_stands_first_and_the_tasks_of_a_group_within_it_are_left_out() -> None:
    results = a_selection().results()
    table, (whole,) = beside(results), quality(results)
    assert table.heads[3:8] == ["retained accuracy", "selection accuracy ↑", "near † acc ↑", "far acc ↑", "pairs acc ↑"]
    assert [str(row[0]) for row in whole.rows] == ["selection", "near †", "far", "pairs", "retained"]
    assert table.title.endswith("removed, first 200 documents; 20 of pairs")
    assert [note for note in table.notes if note.startswith(("†", "the 2 tasks"))] == [
        "†: the intact model is less than two standard errors better than a model that knows nothing; for an average "
        "this holds in each part, with Bonferroni's correction",
        "the 2 tasks of groups within a group are in the CSV and in JSON documents alone",
    ]
    assert "The 2 tasks of groups within a group are in the CSV" in page(results)
    assert "†: the intact model is less than two standard errors better" in page(results)
    known = results.to_pandas()
    assert {"ant", "bee"} <= set(known.task)
    assert set(known[known.at_floor == True].task) == {"near"}  # noqa: E712
    assert results.model.metrics["near"]["acc"].floor == 0.5


def test_without_a_group_within_a_group_every_task_is_shown() -> None:
    made = a_selection()
    made.metrics = {label: metrics[3:] for label, metrics in made.metrics.items()}
    table = beside(made.results())
    assert table.heads[4:7] == ["pairs acc ↑", "ant acc ↑", "bee acc ↑"]
    assert not [note for note in table.notes if note.startswith(("†", "the "))]


def test_a_grid_of_one_is_shown_as_a_run(tmp_path: Path) -> None:
    """Without repeats and with one amount, the models stand side by side; those of two pruners have different names."""
    results = findings(tmp_path, repeats=1, counts=[2], ratios=[], pruners=["lowest", "window"], scorers=["avss"])
    (table,) = first(results)
    names = [str(row[0]) for row in table.rows]
    assert len(set(names)) == len(names)
    assert {"original", "avss (lowest)", "avss (window)"} <= set(names)
    by_name = {str(row[0]): row for row in table.rows}
    for removal in results.model.removals:
        if removal.label == "avss":
            row = by_name[f"avss ({removal.pruner})"]
            assert str(row[1]) == words.ranges(removal.models[0].blocks)
            assert (
                row[table.heads.index("mood acc ↑ 100 documents")].value
                == removal.models[0].metrics["mood"]["acc"].value
            )


def test_what_is_removed_is_marked() -> None:
    table = scores(model_of(without_two_blocks()), "paper")
    assert shown_in(table, "removed") == ["", "✗ 1st", "", "", "", "✗ 2nd"]
    assert table.styles == ["", "red", "", "", "", "red"]

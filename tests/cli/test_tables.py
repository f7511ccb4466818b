"""The tables of a run, for scores, removals and comparisons."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table
from support.reports import model_of, report, with_a_seam

from layerimp.cli import score_tables, tables
from layerimp.pruner import PrunePlan
from layerimp.report.overview import overview
from layerimp.scorer import Importance
from layerimp.steps import sublayers_of


def shown_in(table: Table, heading: str) -> list[str]:
    """The cells of a column."""
    return [str(cell) for column in table.columns if str(column.header) == heading for cell in column.cells]


def test_tables_show_seams() -> None:
    made = with_a_seam()
    (table,) = score_tables.scores(model_of(made), "paper", lambda _: True)
    assert shown_in(table, "removed") == ["", "½ 1st (1/2)", "½ 1st (1/2)", "", "", "✗ 2nd"]
    (table,) = tables.removed(made.results(), lambda _: True)
    assert shown_in(table, "which") == ["1/2, 5"]
    made.plans["twin"], made.sizes["twin"] = made.plans["paper"], made.sizes["paper"]
    (told,) = tables.seams(model_of(made))
    del made.plans["twin"], made.sizes["twin"]
    assert told.startswith("seam 1/2: the MLP of block 1 and")
    (compared,) = tables.comparison(made.results(), lambda _: True)
    assert str(compared.title).startswith("comparison, 4 of 6 blocks left (± standard error")
    assert str(compared.columns[1].header) == "removed"
    assert [str(cell) for cell in compared.columns[1].cells] == ["", "1/2, 5"]
    made.plans = {"paper": PrunePlan(num_blocks=6, blocks=[5, 4])}
    (compared,) = tables.comparison(made.results(), lambda _: True)
    assert str(compared.title).startswith("comparison, 2 of 6 blocks (33.33%) removed (± standard error")
    assert list(tables.seams(model_of(made))) == []


def test_a_model_alone_has_its_own_name(tmp_path: Path) -> None:
    """Beside pruned models the intact one is `original`; a checkpoint that is evaluated by itself is not."""
    (tmp_path / "healed").mkdir()
    for model, name in ((str(tmp_path / "healed"), "healed"), ("org/model", "org/model")):
        made = report(model=model)
        (quality,) = tables.metrics(made.results(), lambda _: True)
        assert [str(column.header) for column in quality.columns[1:3]] == ["original", "paper"]
        del made.sizes["paper"], made.metrics["paper"], made.footprint["paper"], made.plans["paper"]
        (quality,) = tables.metrics(made.results(), lambda _: True)
        assert [str(column.header) for column in quality.columns] == ["metric", name, "documents"]
        (costs,) = tables.footprint(made.results(), lambda _: True)
        assert shown_in(costs, "model") == [name]
        assert list(overview(made.results()).frame()["model"]) == [name]
        assert set(model_of(made).metrics) == {"sst2", "wikitext"}, "a program finds it in the same place"


def test_scores_of_seams_stand_between_those_of_blocks() -> None:
    made = with_a_seam()
    steps = [*range(6), *(f"{n}/{n + 1}" for n in range(5))]
    made.importance = {"paper": Importance([float(n) for n in range(11)], steps, columns={"std": [0.0] * 11})}
    (table,) = score_tables.scores(model_of(made), "paper", lambda _: True)
    assert str(table.title).startswith("paper: importance of 6 blocks and 5 seams (")
    assert [name.strip() for name in shown_in(table, "step")[:4]] == ["0", "0/1", "1", "1/2"]
    assert shown_in(table, "score")[:4] == ["0", "6", "1", "7"]
    assert shown_in(table, "removed")[:5] == ["", "", "½ 1st (1/2)", "✗ 1st", "½ 1st (1/2)"]
    assert model_of(made).scored["paper"].steps == sorted(steps, key=sublayers_of)
    assert model_of(report()).scored["paper"].steps == [0, 1, 2, 3]


def test_attention_and_mlp_stand_side_by_side() -> None:
    made = with_a_seam()
    made.plans = {}
    steps = [f"{n}.{part}" for n in range(6) for part in ("attn", "mlp")]
    scores = [float(n) for n in range(12)]
    made.importance = {"paper": Importance(scores, steps, columns={"std_dev": [0.5] * 12})}
    (table,) = score_tables.scores(model_of(made), "paper", lambda _: True)
    assert str(table.title).startswith("paper: importance of attention and MLP in 6 blocks (")
    heads = [str(column.header) for column in table.columns]
    assert heads == ["block", "attention\nscore", "MLP\nscore", "attention\nstd dev", "MLP\nstd dev"]
    assert [str([*column.cells][2]) for column in table.columns] == ["2", "4", "5", "0.5", "0.5"]
    assert model_of(made).scored["paper"].steps == steps

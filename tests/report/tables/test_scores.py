"""The tables of scores: for blocks, with seams between them, and for attention and MLP."""

from __future__ import annotations

from support.reports import model_of, report, with_a_seam

from layerimp._table import Table
from layerimp.report.tables.scores import scores
from layerimp.scorer import Importance
from layerimp.steps import sublayers_of


def shown_in(table: Table, head: str) -> list[str]:
    """The cells of a column."""
    return [str(cell) for column in table.columns if column.head == head for cell in column.cells]


def test_what_is_removed_is_marked() -> None:
    table = scores(model_of(with_a_seam()), "paper")
    assert shown_in(table, "removed") == ["", "½ 1st (1/2)", "½ 1st (1/2)", "", "", "✗ 2nd"]
    assert table.styles == ["", "yellow", "yellow", "", "", "red"]
    assert [column.drawn for column in table.columns[:3]] == [None, "bars", None]


def test_scores_of_seams_stand_between_those_of_blocks() -> None:
    made = with_a_seam()
    steps = [*range(6), *(f"{n}/{n + 1}" for n in range(5))]
    made.importance = {"paper": Importance([float(n) for n in range(11)], steps, columns={"std": [0.0] * 11})}
    table = scores(model_of(made), "paper")
    assert table.title.startswith("paper: importance of 6 blocks and 5 seams (")
    assert [name.strip() for name in shown_in(table, "step")[:4]] == ["0", "0/1", "1", "1/2"]
    assert shown_in(table, "score")[:4] == ["0", "6", "1", "7"]
    assert shown_in(table, "removed")[:5] == ["", "", "½ 1st (1/2)", "✗ 1st", "½ 1st (1/2)"]
    assert model_of(made).scored["paper"].steps == sorted(steps, key=sublayers_of)
    assert model_of(report()).scored["paper"].steps == [0, 1, 2, 3]


def test_attention_and_mlp_stand_side_by_side() -> None:
    made = with_a_seam()
    made.plans = {}
    steps = [f"{n}.{part}" for n in range(6) for part in ("attn", "mlp")]
    values = [float(n) for n in range(12)]
    made.importance = {"paper": Importance(values, steps, columns={"std_dev": [0.5] * 12})}
    table = scores(model_of(made), "paper")
    assert table.title.startswith("paper: importance of attention and MLP in 6 blocks (")
    assert table.heads == ["block", "attention score", "MLP score", "attention std dev", "MLP std dev"]
    assert [str(cell) for cell in table.rows[2]] == ["2", "4", "5", "0.5", "0.5"]
    assert model_of(made).scored["paper"].steps == steps

"""Output on screens of any width: no table is broken by the terminal."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.mood import Run


@pytest.mark.parametrize("width", [40, *(pytest.param(width, marks=pytest.mark.slow) for width in (80, 120))])
def test_no_table_is_wider_than_the_screen(
    layerimp_command: Run, scoring: list[object], task: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    """COLUMNS counts where stdout is no terminal."""
    monkeypatch.setenv("COLUMNS", str(width))
    for command in (
        ["run", *scoring, "--scorer", "avss", "--scorer", "perplexity", "--tasks", task],
        ["run", *scoring, "--scorer", "avss", "--no-baselines", "--tasks", task],
        ["score", *scoring, "--scorer", "block-influence", "--by", "sublayer"],
        ["scorers"],
        ["pruners", "greedy"],
    ):
        out, _ = layerimp_command.done(*command)
        assert max(map(len, out.splitlines())) <= width, command
    scored = layerimp_command("score", *scoring, "--scorer", "avss")[1]
    heads = [line for line in scored.splitlines() if re.match(r" *block ", line)]
    assert heads[0].split()[1] == "avss", "what decides comes first"


def test_without_columns_a_pipe_is_120_wide(
    layerimp_command: Run, scoring: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    longest = max(map(len, layerimp_command("score", *scoring)[1].splitlines()))
    assert 80 < longest <= 120


def test_narrow_terminals_lose_no_digit(
    layerimp_command: Run, scoring: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = layerimp_command("score", *scoring)[1]
    monkeypatch.setenv("COLUMNS", "60")
    narrow = layerimp_command("score", *scoring)[1]
    assert "…" not in narrow
    rules = {word for word in {*narrow.split(), *wide.split()} if set(word) == {"─"}}
    assert set(narrow.split()) - rules == set(wide.split()) - rules

"""Output on screens of any width: no table is broken by the terminal, and bars agree with the numbers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.mood import Run

from layerimp.cli.tables import BAR, bars

modest = settings(derandomize=True, max_examples=100, deadline=None, database=None)
numbers = st.floats(-1e6, 1e6, allow_nan=False)
BIG = "▏▎▍▌▋▊▉█"


def length(bar: str) -> float:
    """The length of a bar in characters."""
    return sum((BIG.index(character) + 1) / 8 for character in bar)


@modest
@given(st.lists(numbers, min_size=1, max_size=40))
def test_bars_keep_the_order_of_the_numbers(values: list[float]) -> None:
    _, drawn = bars(values)
    pairs = sorted(zip(values, map(length, drawn), strict=True))
    assert [size for _, size in pairs] == sorted(size for _, size in pairs)
    assert max(map(length, drawn)) in (0, BAR)


def test_bars_are_in_proportion_unless_one_number_drowns_the_others() -> None:
    assert bars([1.0, 2.0, 4.0]) == ("", ["█" * 3, "█" * 6, "█" * 12])
    assert bars([-1.0, 0.0, 2.0]) == ("", ["", "█" * 4, "█" * 12]), "from the least on, where it is below 0"
    scale, drawn = bars([1.0, 10.0, 1000.0])
    assert scale == "log scale"
    lengths = list(map(length, drawn))  # 0.1 + 0, 1 and 3 decades of three, of 1.1 in all
    assert lengths == pytest.approx([BAR * share / 1.1 for share in (0.1, 0.1 + 1 / 3, 1.1)], abs=1 / 16)
    assert bars([0.0, 0.0]) == ("", ["", ""])


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

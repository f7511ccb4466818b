"""Output on screens of any width: no table is broken by the terminal, and bars agree with the numbers."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from support.mood import Run

from layerimp._table import Column, Table
from layerimp.cli.tables import BAR, bars, parts, shown

modest = settings(derandomize=True, max_examples=100, deadline=None, database=None)
numbers = st.floats(-1e6, 1e6, allow_nan=False)
BIG = "▏▎▍▌▋▊▉█"


def length(bar: str) -> float:
    """The length of a bar in characters."""
    return sum((BIG.index(character) + 1) / 8 for character in bar)


@modest
@given(st.lists(numbers, min_size=1, max_size=40))
def test_bars_keep_the_order_of_the_numbers(values: list[float]) -> None:
    _, drawn = bars(values, plain=False)
    pairs = sorted(zip(values, map(length, drawn), strict=True))
    assert [size for _, size in pairs] == sorted(size for _, size in pairs)
    assert max(map(length, drawn)) in (0, BAR)
    assert all(set(bar) <= {"#"} and len(bar) <= BAR for bar in bars(values, plain=True)[1])


def test_bars_are_in_proportion_unless_one_number_drowns_the_others() -> None:
    assert bars([1.0, 2.0, 4.0], plain=True) == ("", ["#" * 3, "#" * 6, "#" * 12])
    assert bars([-1.0, 0.0, 2.0], plain=True) == ("", ["", "#" * 4, "#" * 12]), "from the least on, where it is below 0"
    scale, drawn = bars([1.0, 10.0, 1000.0], plain=True)
    assert scale == "log scale"
    lengths = [len(bar) for bar in drawn]  # 0.1 + 0, 1 and 3 decades of three, of 1.1 in all
    assert lengths == [round(BAR * share / 1.1) for share in (0.1, 0.1 + 1 / 3, 1.1)]
    assert bars([0.0, 0.0], plain=False) == ("", ["", ""])


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


@pytest.mark.parametrize(
    ("encoding", "said"), [("ascii", "v +-1 >=2 -3"), ("latin-1", "v ±1 >=2 -3"), ("utf-8", "↓ ±1 ≥2 −3")]
)
def test_signs_that_the_screen_has_no_code_for_are_spelt(
    monkeypatch: pytest.MonkeyPatch, encoding: str, said: str
) -> None:
    stdout = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr("layerimp.cli.tables.results", lambda: stdout)
    assert shown("↓ ±1 ≥2 −3").plain == said
    (table,) = parts(Table([Column("metric", ["perplexity ↓"]), Column("avss", ["1.5 ± 0.2"])]), lambda _: True)
    Console(file=stdout, width=120, legacy_windows=False).print(table)
    stdout.flush()
    assert b"\\u" not in stdout.buffer.getvalue()  # type: ignore[attr-defined]


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

"""The benchmark of seams: finished work is kept, and comparisons are paired."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cuts_compared import Line, Pair, show
from finished import Finished
from seams_worth import main, read_method

from layerimp.recipe import ComponentSpec


def test_methods() -> None:
    assert read_method("lrp") == ("lrp", ComponentSpec(name="lowest"))
    greedy = ComponentSpec(name="greedy", options={"exchange": 2, "gap_penalty": 0.5})
    assert read_method("perplexity:greedy,exchange=2,gap_penalty=0.5") == ("perplexity", greedy)


def line(draw: int, cuts: str, *, worse: float, error: bool = False) -> Line:
    totals = [10.0 + document + worse * (1 + 0.1 * document) for document in range(20)]
    costs = {"parameters": 10, "cache": 5.0, "latency": 0.5}
    outcome: dict[str, Any] = {"error": "no"} if error else {"totals": totals, "counts": [10] * 20, **costs}
    place = {"draw": draw, "method": "m", "cuts": cuts, "count": "1", "healer": ""}
    return {**place, "steps": [2] if cuts == "blocks" else ["2/3"], "outcome": outcome}


def test_both_are_compared_on_the_same_documents(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        line(draw, cuts, worse=worse + draw / 9) for draw in range(3) for cuts, worse in (("blocks", 3), ("all", 1))
    ]
    pair = Pair.of(lines, "m", "1", "")
    assert pair is not None
    assert pair.apart.mean == pytest.approx(-2 * sum(1 + 0.1 * document for document in range(20)) / 200)
    assert pair.apart.tells
    assert pair.removed() == "2/3 (3)"
    assert pair.cost("latency", ".2f") == "0.50 → 0.50"
    show(["m"], ["1"], [""], lines)
    assert "better*" in capsys.readouterr().out
    assert Pair.of(lines[:1], "m", "1", "") is None
    assert Pair.of([*lines, line(3, "blocks", worse=1), line(3, "all", worse=1, error=True)], "m", "1", "") is None


def test_what_is_finished_is_read_and_what_was_cut_off_is_not(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    assert Finished(path, "s").lines == []
    for asked in "st":
        for cuts in ("blocks", "all"):
            Finished(path, asked).add(line(0, cuts, worse=1))
    path.write_text(path.read_text()[:-10])
    assert [kept["cuts"] for kept in Finished(path, "s").lines] == ["blocks", "all"]
    cut_off = Finished(path, "t")
    assert [kept["cuts"] for kept in cut_off.lines] == ["blocks"]
    cut_off.add(line(0, "all", worse=1))
    assert Finished(path, "t").lines == cut_off.lines
    assert len(Finished(path, "t").lines) == 2


def test_it_goes_on_where_it_stopped(
    model_dir: Path, calibration_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held_out, results = tmp_path / "held.jsonl", tmp_path / "results.jsonl"
    documents = [json.dumps({"text": f"the cat was {word} and it"}) for word in ("big", "small", "good", "bad")]
    held_out.write_text("\n".join(documents))
    asked: dict[str, Any] = {"calibration": str(calibration_file), "held_out": [held_out], "method": ["depth"]}
    asked |= {"count": [1, 2], "ratio": [0.5], "samples": 8, "max_length": 16, "documents": 4}
    healed = {"healer": ["rescale"], "heal_count": ["2"]}
    for draws, heal, lines in ((1, {}, 4), (2, {}, 8), (2, {}, 8), (2, healed, 12)):
        main([str(model_dir)], results, draws=draws, **asked, **heal)
        assert len(results.read_text().splitlines()) == lines
    after_one, after_two = (json.loads(text)["outcome"]["cache"] for text in results.read_text().splitlines()[:2])
    assert after_one > after_two > 0
    assert "4 blocks" in capsys.readouterr().out

"""The page on seams has the comparisons that the results of the benchmark lead to."""

from __future__ import annotations

import json
from collections import defaultdict

import pages
import pytest
from cuts_compared import Line, rows

PAGE = (pages.ROOT / "docs" / "choose" / "seams.md").read_text(encoding="utf-8")
RESULTS = pages.ROOT / "benchmarks" / "results" / "seams_worth.jsonl"


DRAWS = 5


def by_model() -> dict[str, list[Line]]:
    """The results of each model."""
    found = defaultdict[str, list[Line]](list)
    for text in RESULTS.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        found[line["model"]].append(line)
    return found


@pytest.mark.parametrize("model", ["smollm2", "gemma3"])
def test_the_page_has_each_comparison(model: str) -> None:
    lines = by_model()[model]
    methods, counts, healers = (dict.fromkeys(line[key] for line in lines) for key in ("method", "count", "healer"))
    every = rows(list(methods), list(counts), list(healers), lines)
    compared = [cells for pair, cells in every if pair and len(pair.lines) == DRAWS]  # others are not finished
    assert len(compared) >= len(methods) * len(counts)
    shown = [row.replace("`", "").replace("−", "-").replace("*", "") for row in PAGE.splitlines()]
    for cells in compared:
        row = " | ".join(cells).replace("*", "")
        assert any(row in line for line in shown), row

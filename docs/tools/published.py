"""Table 1 of the AVSS paper, as published: `benchmarks/results/avss_paper.jsonl`, with what runs each row here."""

from __future__ import annotations

import json

import pages

from layerimp.defaults import PAPER_SCORERS

DATA = pages.ROOT / "benchmarks" / "results" / "avss_paper.jsonl"
DIGITS = {"perplexity": 3, "accuracy": 4, "F1": 4}


def table() -> tuple[list[str], list[list[str]]]:
    """Return the heads and the rows, with the best of the four metrics in bold."""
    head = [
        "`TASK`",
        "metric",
        "paper's model",
        "`MODEL`",
        "`SHARE`",
        "intact",
        *(f"`{name}`" for name in PAPER_SCORERS),
    ]
    rows = []
    for line in map(json.loads, DATA.read_text(encoding="utf-8").splitlines()):
        digits, values = DIGITS[line["metric"]], [line[name] for name in PAPER_SCORERS]
        best = min(values) if line["metric"] == "perplexity" else max(values)
        shown = [f"**{value:.{digits}f}**" if value == best else f"{value:.{digits}f}" for value in values]
        where = [f"`{line['task']}`", line["metric"], line["model"], f"`{line['hub']}`", f"{line['share'] / 100:g}"]
        rows.append([*where, f"{line['original']:.{digits}f}", *shown])
    return head, rows

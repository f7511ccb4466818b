"""The model card: it says what was done, and is safe from injection."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from support.reports import report, without_two_blocks

from layerimp import __version__
from layerimp.evaluator import DataFile, Metric
from layerimp.fidelity import Fidelity, Generation, Sample
from layerimp.pruner import PrunePlan
from layerimp.report.card import escaped, model_card
from layerimp.scorer import Importance

HOSTILE = [
    "[click](http://evil.example)",
    "<script>alert(1)</script>",
    "![x](y)",
    "**bold** _it_ `code` ~~gone~~ $x$",
    "a | b \\| c \\",
    "# title\n\n---\n- item\n1. one",
    "&lt;b&gt; <!-- x -->",
]


def rendered(name: str) -> list[Any]:
    """What Markdown makes of a name in a heading, in a list item and in a table."""
    text = escaped(name)
    source = f"# {text}\n\n- **Source:** {text}\n\n| a | b |\n|---|---|\n| {text} | end |\n"
    tokens = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(source)
    return [token for token in tokens if token.type == "inline"]


@settings(derandomize=True, max_examples=150, deadline=None, database=None)
@given(
    st.one_of(
        st.sampled_from(HOSTILE), st.text("ab1 \n\t\r\u2028\\`*_{}[]()#+-.!|<>&;~$^=:/\"'@é", min_size=1, max_size=25)
    )
)
def test_a_name_is_text_wherever_it_stands(name: str) -> None:
    plain = " ".join(name.split())
    heading, item, *cells = rendered(name)
    assert {child.type for child in heading.children} <= {"text", "text_special"}
    assert "".join(child.content for child in heading.children) == plain
    assert "".join(child.content for child in item.children) == f"Source: {plain}".rstrip()
    assert [cell.content for cell in cells[:2]] == ["a", "b"]
    assert len(cells) == 4
    assert "".join(child.content for child in cells[2].children) == plain
    assert cells[3].content == "end"


@pytest.mark.parametrize("name", ["https://evil.example/x", "http://evil.example", "www.evil.example"])
def test_a_bare_address_is_no_link(name: str) -> None:
    """GitHub's Markdown makes links of these; a backslash before `:` or `.` stops it."""
    assert not re.search(r"https?://|www\.", escaped(name))


def test_the_card_states_source_method_and_cost() -> None:
    card = model_card(report(limit=20).results(), "paper")
    assert "# dir/tiny, 2 of 4 blocks removed" in card
    assert "- **Source:** dir/tiny\n" in card
    assert f"scorer avss (label paper), pruner lowest, layerimp {__version__}" in card
    assert "- **Blocks removed:** 0, 2 (0-based" in card
    assert "2 blocks (50.00%), 400 parameters (40.00%), 1,600 bytes (40.00%)" in card
    assert "3 rows, 24 tokens of text.jsonl (fingerprint abc)" in card
    assert "| sst2 | acc |  | 0.8000 ± 0.010 | 0.6000 ± 0.020 | 75.0% ± 2.7% |" in card
    assert "| wikitext | word\\_perplexity |  | 20.00 | 40.00 |  |" in card
    assert "- sst2: the evaluator gives no floor of acc" in card
    assert "first 20 documents" in card


def test_the_card_says_what_was_removed() -> None:
    card = model_card(without_two_blocks().results(), "paper")
    assert "# dir/tiny, 2 of 6 blocks removed" in card
    assert "- **Blocks removed:** 1, 5 (0-based indices in the source)\n" in card
    assert "- **Smaller by:** 2 blocks (33.33%), 400 parameters (33.33%), 1,600 bytes (33.33%)" in card


def test_the_card_of_a_poor_model_says_so() -> None:
    made = report()
    assert "Poor" not in model_card(made.results(), "paper")
    accuracy, perplexity = made.metrics["paper"]
    made.metrics["paper"] = [replace(accuracy, value=0.3), perplexity]
    share = escaped("it retains 37.5% of what the intact model knows in the tasks, below 50%")
    assert f"\n\n- **Poor:** {share}\n- **Source:** dir/tiny\n" in model_card(made.results(), "paper")


def test_the_card_of_an_unmeasured_checkpoint_has_no_table() -> None:
    made = report()
    made.metrics, made.calibration = {}, None
    card = model_card(made.results(), "paper")
    assert "|" not in card
    assert "Calibration" not in card


def test_every_outside_name_on_the_card_is_escaped() -> None:
    evil = "x|<b>[y](z)\n# boo"
    made = report(model=evil)
    made.calibration = made.calibration.model_copy(update={"source": evil})
    made.plans = {"paper": PrunePlan(num_blocks=4, blocks=[2, 0], scorer=evil, pruner=evil)}
    metric = Metric(evil, evil, 0.0)
    made.metrics = {"original": [metric], "paper": [metric]}
    card = model_card(made.results(), "paper")
    assert card.count(escaped(evil)) == 11
    _, _, text = card.split("---\n", 2)
    assert not re.search(r"(?<!\\)<b>|\n# boo|(?<!\\)\[y", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S))
    assert "| 0.000 | 0.000 |  |" in card


def test_the_card_says_which_rows_were_read_and_how_many() -> None:
    files = [
        DataFile(task="boolq", split="test", path="boolq/test.jsonl", rows=1600, sha256="ab" * 32, licence="CC-BY"),
        DataFile(task="a_b", split="test", path="a_b/test.jsonl", rows=7, sha256="cd" * 32),
    ]
    results = report(limit=20, limits={"blimp": 670}).results()
    card = model_card(results.model_copy(update={"data_files": files}), "paper")
    assert "Measured of each task: first 20 documents; 670 of blimp." in card
    assert f"| boolq/test.jsonl | 1,600 | `{'ab' * 32}` | CC-BY |" in card
    assert f"| a\\_b/test.jsonl | 7 | `{'cd' * 32}` | not stated |" in card
    assert "SHA-256" not in model_card(results, "paper")


def test_the_card_marks_tasks_at_their_floor_and_leaves_out_those_of_a_group_within_a_group() -> None:
    metrics = [
        Metric("all", "accuracy", 0.8, 0.01, floor=0.5, members=("group", "near", "ant")),
        Metric("group", "acc", 0.9, 0.01, floor=0.5, members=("ant",)),
        Metric("near", "acc", 0.51, 0.01, floor=0.5),
        Metric("ant", "acc", 0.9, 0.01, floor=0.5),
    ]
    made = report()
    made.metrics = {"original": metrics, "paper": metrics}
    metadata, _, results = model_card(made.results(), "paper").partition("## Results")
    assert re.findall(r"^\| ([\w †]+) \| acc", results, re.MULTILINE) == ["all", "group", "near †"]
    assert re.findall(r"^ +type: (all|group|near|ant)$", metadata, re.MULTILINE) == ["all", "group", "near"]
    assert "†: the intact model is less than two standard errors better" in results


def test_a_card_says_nothing_of_other_models() -> None:
    made = report()
    made.importance["other"], made.sizes["other"] = Importance([0.1, 0.2, 0.3, 0.4]), made.sizes["paper"]
    made.plans["other"] = PrunePlan(num_blocks=4, blocks=[0, 1], scorer="depth", pruner="lowest")
    made.metrics["other"] = [Metric("sst2", "acc", 0.9, 0.01)]
    results = made.results()
    (note,) = results.model.removals[1].notes
    assert note.startswith("other retains 112.5% of sst2: it is better than the intact model")
    assert escaped(note) in model_card(results, "other")
    assert "other" not in model_card(results, "paper")


def test_a_continuation_stays_text() -> None:
    """A model that writes Markdown, with fences and headings, changes nothing in the card."""
    evil = "```python\nprint(1)\n```\n<img src=x> [click](http://evil.example)\n## Results"
    sample = Sample(prompt=evil, chat=False, intact=evil, text=evil)
    generation = Generation(same_tokens=1, empty=0, loops=0, intact_empty=0, intact_loops=0, samples=[sample])
    made = report()
    made.fidelity["paper"] = Fidelity(generation=generation)
    card = model_card(made.results(), "paper", samples=[sample])
    section = card.partition("## How far from the source")[2].partition("\n## Use\n")[0]
    parsed = MarkdownIt("commonmark", {"html": True}).enable("table").parse(section)
    assert [token.content.split() for token in parsed if token.type == "fence"] == [evil.split()] * 3
    assert not any(token.type == "heading_open" for token in parsed)
    assert not any("html" in token.type for token in parsed)

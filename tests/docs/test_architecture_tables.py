"""The tables of architectures: every type that was tried stands in them once, with its outcome."""

from __future__ import annotations

import re

import architecture_tables as tables
import pytest
import reference


@pytest.mark.parametrize("head", tables.HEADS)
def test_each_type_stands_once_under_its_head(head: str) -> None:
    exact = re.findall(r"`([^`]+)`", tables.exact(head))
    others = [row[0].strip("`") for row in tables.others(head)[1]]
    tried = [line["type"] for line in tables.results() if line["head"] == head]
    assert sorted(exact + others) == sorted(tried)
    assert len(set(tried)) == len(tried)


def test_the_outcomes_agree_with_the_removals_that_were_exact() -> None:
    for line in tables.results():
        part = line["blocks"]
        outcome = "in part" if 0 < part["exact"] < part["tried"] else "exact" if part["exact"] else None
        assert part["outcome"] in ((outcome,) if outcome else ("refused", "wrong", "not built")), line["type"]


def test_whatever_is_not_exact_has_a_reason() -> None:
    for head in tables.HEADS:
        assert all(row[-1] for row in tables.others(head)[1])


def test_counts_are_those_of_the_rows() -> None:
    head, rows = tables.counts()
    counts = {row[0]: dict(zip(head[1:], map(int, row[1:]), strict=True)) for row in rows}
    for name, title in tables.HEADS.items():
        others = [row[1] for row in tables.others(name)[1]]
        blocks = counts[title]
        assert blocks["in part"] == sum(outcome.endswith(" exact") for outcome in others)
        assert blocks["refused"] == others.count("refused")
        assert blocks["tried"] - blocks["exact"] == len(others) - others.count("exact")


def test_the_readme_counts_all_forms() -> None:
    head, rows = tables.counts()
    blocks = [dict(zip(head, row, strict=True)) for row in rows]
    tried, exact, part, refused, wrong, unbuilt = (
        sum(int(row[name]) for row in blocks) for name in ("tried", *tables.OUTCOMES)
    )
    lost = f"{exact} lose any block exactly, {part} some, {refused} none, and {wrong} wrongly"
    readme = (reference.ROOT / "README.md").read_text(encoding="utf-8")
    assert f"Of {tried} forms, tried as tiny random models, {lost}; {unbuilt} could not be built." in readme


def test_a_scorer_that_refuses_one_form_of_a_type_is_listed_with_that_form() -> None:
    refused = {
        (line["type"], line["head"]): set(line["scorers"]) for line in tables.results() if line["scorers"] is not None
    }
    listed: dict[tuple[str, str], set[str]] = {pair: set() for pair in refused}
    for names, _, types in tables.scorers()[1]:
        for kind, form in re.findall(r"`([^`]+)`(?: \((\w+)\))?", types):
            for pair in listed:
                if pair[0] == kind and form in ("", pair[1]):
                    listed[pair] |= set(re.findall(r"`([^`]+)`", names))
    assert listed == refused


def test_the_page_has_a_part_for_each_table() -> None:
    page = reference.expanded((reference.ROOT / "docs/reference/architectures.md").read_text(encoding="utf-8"))
    assert "| causal language models |" in page
    assert "`llama`" in page
    assert "| scorers | reason | types |" in page


def test_types_whose_video_was_not_made_up_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert re.search(r"A video was made up for \d+ types, audio for \d+\.$", tables.conditions())
    lines = [line | {"type": f"type{number}"} for number, line in enumerate(tables.results()[:4])]
    inputs = [{}, {"image": True, "video": True}, {"image": True, "video": False}, {"image": False, "video": False}]
    lines = [line | {"inputs": known} for line, known in zip(lines, inputs, strict=True)]
    monkeypatch.setattr(tables, "results", lambda: lines)
    assert tables.conditions().endswith("A video was made up for 1 types, audio for 0, not for `type2` (video).")

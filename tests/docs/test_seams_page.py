"""The page on seams shows the comparisons that the results of the benchmark lead to, and says what they say."""

from __future__ import annotations

import statistics

import anatomy
import pages
import pytest
import reference
import seams_compared
from support.pictures import alike

CHOOSE = pages.ROOT / "docs" / "choose"
MODELS = list(seams_compared.NAMES)


def test_the_pages_show_every_model() -> None:
    assert "<!-- generated: seams -->" in (CHOOSE / "cut-seams.md").read_text(encoding="utf-8")
    evidence = (CHOOSE / "evidence.md").read_text(encoding="utf-8")
    summary = reference.expanded("<!-- generated: seams -->")
    for model in MODELS:
        assert f"<!-- generated: seams {model} -->" in evidence
        for line in reference.expanded(f"<!-- generated: seams {model} -->").splitlines()[2:]:
            if "(25%)" in line:
                assert line.rpartition(" | ")[0] in summary


@pytest.mark.parametrize("model", MODELS)
def test_a_difference_is_the_mean_over_the_draws(model: str) -> None:
    lines = seams_compared.results()[model]
    comparisons = seams_compared.compared(model)
    methods, counts = ({line[key] for line in lines} for key in ("method", "count"))
    assert len(comparisons) >= len(methods) * len(counts)
    for _, (method, count, healer, *_, shown, _) in comparisons:
        place = method, count, "" if healer == "none" else healer
        losses: dict[str, list[float]] = {"all": [], "blocks": []}
        for line in lines:
            if (line["method"], line["count"], line["healer"]) == place:
                losses[line["cuts"]].append(sum(line["outcome"]["totals"]) / sum(line["outcome"]["counts"]))
        difference = statistics.mean(losses["all"]) - statistics.mean(losses["blocks"])
        assert float(shown.split(" (")[0]) == pytest.approx(difference, abs=0.00051)


def test_the_drawing_is_current() -> None:
    shown = (pages.ROOT / "docs" / "figures" / "seams.svg").read_text(encoding="utf-8")
    assert alike(shown, anatomy.picture()), "python docs/tools/regenerate.py docs/figures/seams.svg"


def test_seams_are_worth_what_the_page_says() -> None:
    every = [cells for model in MODELS for _, cells in seams_compared.compared(model)]
    unhealed, healed = ([cells for cells in every if (cells[2] == "none") == bare] for bare in (True, False))
    searched = [cells[-1] for cells in unhealed if cells[0] in ("perplexity:greedy", "block-influence")]
    assert any("better" in verdict for verdict in searched)
    assert not any("worse" in verdict for verdict in searched)
    assert not any("better" in cells[-1] for cells in healed)
    assert {cells[0] for cells in healed if "worse" in cells[-1]} == {"lrp"}

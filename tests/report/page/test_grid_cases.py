"""The page of a grid in special cases: healed, empty, broken, and with strange names."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pytest
from markupsafe import Markup
from support.made_up_grids import found_of, part, pictures, words

from layerimp.report.document import Failure, Results
from layerimp.report.page import page
from layerimp.report.page.curves import looks
from layerimp.report.results.comparison import ModelResults


@pytest.fixture
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the pictures out, for tests of what is said beside them."""
    monkeypatch.setattr("layerimp.report.page.drawn", lambda *_: Markup())


@cache
def case_of(name: str) -> Results:
    return found_of(**EMPTY[name])


@cache
def document_of(name: str) -> str:
    return page(case_of(name))


def test_names_cannot_act() -> None:
    evil = '</title><script>alert("$x$")</script>&'
    results = found_of(tasks=(evil,))
    model = results.models["tiny"]
    design = results.design.model_copy(
        update={
            "models": {evil: results.design.models["tiny"]},
            "measured": {evil: [evil]},
            "scorers": {evil: results.design.scorers["avss"]},
        }
    )
    rows = [
        row.model_copy(
            update={
                "task": evil,
                "entries": {evil: row.entries["avss"].model_copy(update={"scorer": evil})},
                "baselines": {"": evil},
            }
        )
        for row in model.rows
    ]
    renamed = {
        "label": evil,
        "scored": {evil: model.scored["avss"]},
        "removals": [
            removal.model_copy(update={"scorer": evil}) for removal in model.removals if removal.scorer == "avss"
        ],
        "removables": [
            removable.model_copy(update={"label": evil}) for removable in model.removables if removable.label == "avss"
        ],
        "rows": rows,
    }
    changed = {
        "design": design,
        "models": {evil: ModelResults(**dict(model) | renamed)},
        "failures": [Failure(what=evil, error=evil)],
        "versions": [evil],
    }
    document = page(results.model_copy(update=changed))
    assert "<script" not in document
    assert document.count("&lt;script&gt;") > 20


def test_healed_models_are_told_from_the_others() -> None:
    results = case_of("two healers")
    styles = looks(list(results.design.scorers), results.design.baselines, results.design.healers)
    assert list(styles) == list(results.design.contenders)
    assert len(set(map(repr, styles.values()))) == len(styles)
    assert styles["avss+linear"].colour == styles["avss"].colour != styles["gbis"].colour
    document = document_of("two healers")
    said = words(document)
    assert "what is left is measured, as it is and healed by linear and rescale." in said
    assert "best baselines: " in said
    assert "What is healed is compared with what the same healer made of random and of the baselines." in said
    assert re.search(r"(than|from) random\+(linear|rescale)", said)
    assert "Healers linear rescale" in said
    table = part(document, "Healing")
    assert table.count('<th scope="row">') == len(results.models["tiny"].headlines) * 2 * len(results.design.scorers)
    assert words(table).count("30.0%") >= len(results.design.amounts) * 2 * len(results.design.scorers)
    for title in ("What is retained", "How many blocks may go"):
        assert ">avss+linear</th>" in part(document, title)
    assert "Each scorer" in words(document)
    # Scores and removed blocks exist only for scorers, not for scorers with healers.
    for title in ("Importance of each block", "Rank agreement", "Stability", "Cost", "Removed blocks"):
        assert not re.search(r"<th[^>]*>[^<]*\+", part(document, title))


@pytest.mark.usefixtures("_no_pictures")
def test_without_healers_nothing_is_said_of_healing() -> None:
    assert "heal" not in words(page(found_of())).lower()


def answer(**grid: Any) -> str:
    return words(page(found_of(**grid)).split('<section class="model"')[1].split("Quality of the pruned model")[0])


@pytest.mark.usefixtures("_no_pictures")
def test_the_answer_says_who_and_whether_that_means_anything() -> None:
    assert "one draw of calibration text" in words(page(found_of(repeats=1)))
    several = answer(scorers=("gbis", "avss"))
    assert re.search(r"retains? most at", several)
    verdict = r"(Not significantly different from|Significantly better than) random \([+−][\d.]+ points, 95 % CI"
    assert re.search(verdict, several)
    assert "all scorers retain the same at every amount" in answer(infinite=True, tasks=("wikitext",))
    twice = answer(scorers=("gbis", "avss"), baselines=("random",), pruners=("lowest", "greedy"))
    assert "With the pruner greedy, " in twice


@pytest.mark.usefixtures("_no_pictures")
def test_the_answer_for_a_single_scorer_is_what_is_left() -> None:
    single = answer(scorers=("gbis",))
    value = found_of(scorers=("gbis",)).models["tiny"].headlines[0].entries["gbis"].value.mean
    assert f"{value:.1%} of what tiny knows is retained without 1 block" in single
    assert re.search(r"(Not significantly different from|Significantly better than) random \([+−][\d.]+ points", single)
    alone = answer(scorers=("gbis",), baselines=("depth",), tasks=("wikitext",), repeats=1)
    assert "Significantly better than the best baseline, depth" in alone
    whole = words(page(found_of(scorers=("gbis",))))
    assert "What is tiny worth with fewer blocks?" in whole
    assert "Which scorer" not in whole


@pytest.mark.usefixtures("_no_pictures")
def test_nothing_is_compared_with_what_is_not_there() -> None:
    for scorers in (("gbis",), ("gbis", "avss")):
        text = answer(scorers=scorers, baselines=())
        assert "random" not in text
        assert "baseline" not in text
        assert ("significantly better than all others" in text) == (len(scorers) > 1)
    text = answer(scorers=("gbis", "avss"), baselines=("random",))
    assert "than random" in text
    assert "baseline" not in text
    assert "random" not in answer(scorers=("gbis", "avss"), baselines=("depth",))


@pytest.mark.parametrize("scorers", [("avss",), ("avss", "gbis")])
@pytest.mark.parametrize("baselines", [(), ("random",)])
@pytest.mark.parametrize("only", [("scoring", "planning", "evaluation", "costing"), ("scoring", "planning")])
@pytest.mark.usefixtures("_no_pictures")
def test_no_section_is_empty(scorers: tuple[str, ...], baselines: tuple[str, ...], only: tuple[str, ...]) -> None:
    for repeats in (1, 2):
        document = page(found_of(scorers=scorers, baselines=baselines, only=only, repeats=repeats))
        for title in re.findall(r"<h3>([^<]*)</h3>", document):
            assert "<table" in part(document, title)
        titles = re.findall(r"<h3>([^<]*)</h3>", document)
        compared = len(scorers + baselines) > 1
        assert ("Rank agreement" in titles) == (compared or repeats > 1)
        assert ("Differences" in titles) == (bool(baselines) and "evaluation" in only)
        assert ("Stability" in titles) == (repeats > 1 or bool(baselines))


EMPTY: dict[str, dict[str, Any]] = {
    "one repeat": {"repeats": 1},
    "one ratio": {"counts": (), "ratios": (0.25,)},
    "no baselines": {"scorers": ("avss",), "baselines": ()},
    "infinite": {"infinite": True},
    "all infinite": {"infinite": True, "tasks": ("wikitext",)},
    "nothing": {"only": ()},
    "nothing evaluated": {"only": ("scoring", "planning")},
    "only scores": {"only": ("scoring",)},
    "all failed": {"fails": " "},
    "evaluation failed": {"fails": "evaluate"},
    "few cells failed": {"fails": "without block 2", "num_blocks": 6},
    "two blocks": {"num_blocks": 2, "ratios": ()},
    "two healers": {"healers": ["linear", "rescale"], "repeats": 2, "ratios": (0.5,)},
    "healing failed": {"healers": ["linear"], "fails": "healed by linear", "repeats": 2, "ratios": (0.5,)},
    "healed partly": {"healers": ["linear"], "fails": "healed by linear (seed 1)", "repeats": 2, "ratios": (0.5,)},
    "same counts": {"ratios": (0.1,)},
    "two pruners": {"pruners": ("lowest", "greedy")},
    "many": {
        "scorers": [f"scorer-{n}-with-a-rather-long-name" for n in range(12)],
        "num_blocks": 40,
        "counts": (),
        "ratios": (0.25,),
    },
}


@pytest.mark.parametrize("case", EMPTY)
def test_no_case_is_too_empty_or_too_full(case: str) -> None:
    document = document_of(case)
    assert all(alt for alt, _ in pictures(document))
    assert not re.search(r"\b(nan|None|inf)\b", words(document))


@pytest.mark.usefixtures("_no_pictures")
def test_a_model_without_findings_is_named() -> None:
    assert "Nothing is known of this model yet." in words(page(found_of(only=())))
    assert "It is not known yet what is retained" in words(page(found_of(only=("scoring", "planning"))))
    short = words(page(found_of(repeats=1, scorers=("avss",), baselines=(), ratios=(), only=("scoring",))))
    assert "at least two repeats are needed" in short
    assert "they were not timed" in short

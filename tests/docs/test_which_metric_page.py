"""The pages "Which metric" and "Evidence" show every stored model, and bear what they find."""

from __future__ import annotations

import json
import math
import re
import shlex
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import choice_tables
import choices
import chosen
import claims
import pages
import pytest
import typer
from finished import Finished, lines_in
from typer.testing import CliRunner

CHOOSE = pages.ROOT / "docs" / "choose"
PAGE, EVIDENCE = ((CHOOSE / f"{name}.md").read_text(encoding="utf-8") for name in ("index", "evidence"))
STARTER, MINILM, SMOLLM2, GEMMA = ("starter", 3), ("minilm-sst2", 2), ("smollm2-135m", 7), ("gemma-3-270m", 4)
MINILM_AMOUNTS = (("minilm-sst2", 1), MINILM)


def mean(amount: tuple[str, int], method: str, name: str, state: str = "healed") -> float:
    """What the methods of a model without so many blocks have on average."""
    return statistics.mean(chosen.values(chosen.cells()[amount][method], state, name))


def methods(amount: tuple[str, int]) -> list[str]:
    return list(chosen.cells()[amount])


def test_every_measured_model_is_on_the_pages() -> None:
    assert "<!-- generated: choices summary -->" in PAGE.splitlines()
    for model, _ in chosen.cells():
        for table in ("all", "ahead"):
            assert f"<!-- generated: choices {table} {model} -->" in EVIDENCE


def test_what_is_stored_was_measured_by_the_commands_of_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    settings: list[str] = []

    class Watched(Finished):
        def __init__(self, path: Path | None, asked: Any) -> None:
            super().__init__(path, asked)
            settings.append(self.setting)

    monkeypatch.setattr(choices, "Finished", Watched)
    app = typer.Typer()
    app.command()(choices.main)
    names = {"SMOLLM2": "smollm2", "GEMMA": "gemma", "MINILM_SST2": "minilm-sst2"}
    names |= dict.fromkeys(("C4.jsonl", "PILE.jsonl"), "sample.jsonl")
    commands = re.findall(r"^python benchmarks/choices\.py (.*) --results (\S+)$", EVIDENCE, re.MULTILINE)
    by_file: dict[str, set[str]] = {}
    for command, file in commands:
        words = [names.get(word, word) for word in shlex.split(command)]
        done = CliRunner().invoke(app, [*words, "--draws", "0"], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        by_file.setdefault(file.replace("FILE", chosen.DATA.name), set()).update(settings)
        settings.clear()
    assert set(by_file) == {chosen.DATA.name}
    for file, known in by_file.items():
        stored = map(json.loads, chosen.DATA.with_name(file).read_text(encoding="utf-8").splitlines())
        assert {line["setting"] for line in stored} <= known, file


def test_the_page_has_ten_findings_of_at_most_two_sentences() -> None:
    assert len(PAGE.split()) <= 1200
    findings = re.findall(
        r"^\d+\. (.*?)(?=\n\d+\. |\n\n)", PAGE.partition("## Ten findings")[2], re.MULTILINE | re.DOTALL
    )
    assert len(findings) == 10
    for finding in findings:
        sentences = re.findall(r"\.(?= |\*\*|$)", finding.replace("\n", " "))
        assert len(sentences) <= 3, finding  # its title and two sentences


def test_no_other_method_is_significantly_ahead_of_the_recommended_one() -> None:
    for amount in (STARTER, ("starter", 1), *MINILM_AMOUNTS, SMOLLM2, ("gemma-3-270m", 2), GEMMA):
        known = chosen.cells()[amount]
        for name in chosen.judged_by(amount[0], known):
            assert " ▲" not in chosen.signs(known, name).values(), (amount, name)
    assert " ▼" not in chosen.signs(chosen.cells()[STARTER], "retained").values()
    ahead = {(("starter", 1), "retained"), (SMOLLM2, "copying")}
    for amount, known in chosen.cells().items():
        for name in chosen.judged_by(amount[0], known):
            sign = chosen.signs(known, name).get("block-influence")
            assert ((amount, name) in ahead) == (sign == " ▼"), (amount, name)
    assert chosen.signs(chosen.cells()[SMOLLM2], "copying")["perplexity, greedy"] == " ▼"
    words = (
        "On SmolLM2 without 7 it copies significantly more than `block-influence` and the search by `perplexity`. It "
        "is ahead of `block-influence` on the starter without one block too, but not in MiniLM's accuracy."
    )
    assert words in " ".join(PAGE.split())


def test_on_minilm_the_last_blocks_heal_best() -> None:
    last = ("gbis", "lrp", "taylor")
    for name in last:
        assert all(set(line["blocks"]) == {4, 5} for line in chosen.cells()[MINILM][name])
        assert mean(MINILM, name, "retained", "unhealed") < 0.01
        assert mean(MINILM, name, "retained") == max(mean(MINILM, each, "retained") for each in methods(MINILM))
        more = [mean(amount, name, "retained") - mean(amount, chosen.METHOD, "retained") for amount in MINILM_AMOUNTS]
        assert [round(100 * gap) for gap in more] == [2, 1]


def test_no_method_leads_everywhere() -> None:
    far = {name: mean(SMOLLM2, name, "divergence") for name in methods(SMOLLM2)}
    copying = {name: mean(SMOLLM2, name, "copying") for name in methods(SMOLLM2)}
    for model, (_, known) in chosen.largest().items():
        assert not any(chosen.signs(known, name).get("divergence") for name in chosen.judged_by(model, known))
    assert min(far, key=lambda name: far[name]) == "angular, window"
    assert max(copying, key=lambda name: copying[name]) == "avss-delta"
    words = "On SmolLM2 without 7 blocks, `angular` with its window is nearest, and `avss-delta` copies most."
    assert words in " ".join(PAGE.split())


def test_one_scoring_is_not_behind_the_search_up_to_a_quarter() -> None:
    for amount, known in chosen.cells().items():
        assert len(known["divergence"]) == 5
        for name in chosen.judged_by(amount[0], known):
            difference = chosen.contrasts(known, name).get("divergence")
            assert difference is None or not difference.tells, (amount, name)
    assert "`divergence` scored once, for half of the cost, differs significantly on no model" in " ".join(PAGE.split())


def test_other_methods_of_one_pass_retain_more_of_two_models() -> None:
    costs = {
        line["model"]: line["costs"]
        for line in map(json.loads, choice_tables.COSTS.read_text(encoding="utf-8").splitlines())
    }

    def best(amount: tuple[str, int]) -> str:
        cheap = {
            name: mean(amount, name, "retained")
            for name in methods(amount)
            if 0 < costs["starter"].get(next(iter(choices.METHODS[name]["scorers"])), 9) < 2
            and chosen.values(chosen.cells()[amount][name], "healed", "retained")
        }
        assert len(cheap) > 2
        return max(cheap, key=lambda name: cheap[name])

    assert mean(STARTER, best(STARTER), "retained") == mean(STARTER, "block-influence", "retained")
    for amount in (SMOLLM2, MINILM):
        assert mean(amount, best(amount), "retained") > mean(amount, "block-influence", "retained")
    assert "On SmolLM2 and MiniLM other one-pass methods retain more on average;" in " ".join(PAGE.split())


def test_what_is_near_may_not_copy() -> None:
    known = chosen.cells()[SMOLLM2]
    assert not chosen.contrasts(known, "divergence")["block-influence"].tells
    difference = chosen.contrasts(known, "copying")["block-influence"]
    assert difference.tells
    assert difference.mean > 20
    left = chosen.values(chosen.cells()[SMOLLM2]["perplexity, greedy"], "healed", "copying")
    assert len(left) > 3
    words = f"leaves between {100 * min(left):.0f} and {100 * max(left):.0f} % of SmolLM2's copying, by draw"
    assert words in " ".join(PAGE.split())


def test_training_hides_the_choice() -> None:
    rivals = (chosen.METHOD, "block-influence", "perplexity, greedy")

    def retained(state: str, names: Iterable[str]) -> list[str]:
        return [f"{100 * mean(SMOLLM2, name, 'retained', state):.0f}" for name in names]

    page = " ".join(PAGE.split())
    healed = (
        "retains {} % by this method, {} % by `block-influence`, and {} % by `gbis`, `angular` and one `random` draw. "
        "Gemma retains {} %, and {} % by `depth`: five errors of the documents more, mostly"
    )
    own, other = (chosen.cells()[GEMMA][name] for name in (chosen.METHOD, "depth"))
    ends = [mean(GEMMA, name, "retained") for name in (chosen.METHOD, "depth")]
    words = healed.format(*retained("healed", (*rivals[:2], "gbis")), *(round(100 * end) for end in ends))
    assert words in page
    (gbis, *others) = retained("healed", ("gbis", "angular, window", "random"))
    assert others == [gbis, gbis]
    errors = [
        math.hypot(*(line["healed"]["retained"]["worst"]["stderr"] for line in pair))
        for pair in zip(own, other, strict=False)
        if all(line["healed"]["retained"] for line in pair)
    ]
    assert round((ends[1] - ends[0]) / statistics.mean(errors)) == 5
    trained = "retains {} % by the recommended method, and {} % by `block-influence` and by the search by `perplexity`"
    own, first, second = retained("trained", rivals[:3])
    assert trained.format(own, first) in page
    assert first == second
    gemma = [round(100 * mean(GEMMA, name, "retained", "trained")) for name in (*rivals, "depth")]
    assert "Gemma retains {}, {} and {} %, and {} % by `depth` on one.".format(*gemma) in page
    for state in ("healed", "trained"):
        contrasts = chosen.contrasts(chosen.cells()[SMOLLM2], "retained", state=state)
        assert not any(each and each.tells for each in contrasts.values())


def test_avss_leads_only_where_the_page_says() -> None:
    led = [
        (amount, name, state)
        for amount, known in chosen.cells().items()
        if amount in (STARTER, MINILM, SMOLLM2, GEMMA)
        for name in chosen.judged_by(amount[0], known)
        for state in chosen.STATES[:2]
        if leading(amount, name, state) == "avss"
    ]
    assert led == [(GEMMA, "retained", "unhealed")]
    own = chosen.values(chosen.cells()[GEMMA]["avss"], "unhealed", "retained")
    words = "By benchmarks AVSS leads once: on Gemma, unhealed.** It retains {:.0f} % there, on one draw."
    assert words.format(*(100 * share for share in own)) in " ".join(PAGE.split())


def leading(amount: tuple[str, int], name: str, state: str) -> str:
    """The method that is best on average."""
    known = {
        method: chosen.MEASURES[name].factor * statistics.mean(values)
        for method, lines in chosen.cells()[amount].items()
        if (values := chosen.values(lines, state, name))
    }
    return max(known, key=lambda method: known[method])


def test_the_site_of_avss_depends_on_the_model() -> None:
    assert all(0 in line["blocks"] for line in chosen.cells()[SMOLLM2]["avss"])
    assert mean(SMOLLM2, "avss-delta", "divergence") < 0.5 * mean(SMOLLM2, "avss", "divergence")
    assert mean(GEMMA, "avss-delta", "divergence") > 5 > mean(GEMMA, "avss", "divergence")
    assert all(0 in line["blocks"] for line in chosen.cells()[GEMMA]["avss-delta"])


def test_healing_depends_on_the_choice() -> None:
    ends = (round(100 * mean(SMOLLM2, "avss-delta", "copying", state)) for state in ("unhealed", "healed"))
    assert "copies {} %, and {} % once it is healed".format(*ends) in PAGE
    gains = {
        name: mean(STARTER, name, "retained") - mean(STARTER, name, "retained", "unhealed")
        for name in ("taylor", "angular, window")
    }
    assert gains["angular, window"] < 0
    assert gains["taylor"] / (1 - mean(STARTER, "taylor", "retained", "unhealed")) == pytest.approx(0.5, abs=0.05)


def test_a_single_block_is_nearly_free() -> None:
    single = {name: lines for name, lines in chosen.cells()["starter", 1].items() if name not in chosen.BASELINES}
    assert min(min(chosen.values(lines, "healed", "retained")) for lines in single.values()) > 0.96


def test_text_decides_too() -> None:
    sets = {
        name: [frozenset(line["blocks"]) for line in chosen.cells()[SMOLLM2][name]]
        for name in (chosen.METHOD, "block-influence")
    }
    assert len(set(sets[chosen.METHOD])) == len(sets[chosen.METHOD]) == 5
    assert len(set(sets["block-influence"])) == 1


def test_on_the_starter_likelihood_comes_back_before_answers() -> None:
    head, rows = choice_tables.by_task("starter")

    def gained(task: str) -> float:
        cells = [row[head.index(f"`{task}`")].split(" → ") for row in rows]
        return statistics.median(float(after) - float(before) for before, after in cells)

    assert gained("starter_stories") > 0 >= gained("starter_sentiment")
    assert gained("starter_qa") <= 1


def test_linear_can_cost_a_task() -> None:
    tasks = [
        [line[state]["retained"]["tasks"]["starter_sentiment"]["mean"] for state in chosen.STATES[:2]]
        for line in chosen.cells()[STARTER][chosen.METHOD]
    ]
    lost = max(round(100 * (unhealed - healed)) for unhealed, healed in tasks)
    page = (CHOOSE.parent / "repair" / "healing.md").read_text(encoding="utf-8")
    assert f"on the starter one draw lost {lost} points of sentiment" in page
    before, after = (round(100 * statistics.mean(values)) for values in zip(*tasks, strict=True))
    assert f"By the recommended method, sentiment falls from {before} to {after} %" in page
    assert sum(unhealed - healed > 0.1 for unhealed, healed in tasks) == 2
    costs = (round(100 * mean(STARTER, chosen.METHOD, "retained", state)) for state in chosen.STATES[:2])
    words = "On the starter healing costs: {} → {} %, by sentiment on two of five draws;"
    assert words.format(*costs) in " ".join(PAGE.split())


def test_the_page_of_the_paper_says_what_the_claims_are_worth() -> None:
    head, rows = claims.table()

    def verdicts(model: str) -> dict[str, str]:
        place = head.index(model)
        return {rival: row[place].partition(":")[0] for rival, row in zip(claims.RIVALS, rows[2:], strict=True)}

    for model in ("SmolLM2-135M, 7 of 30", "Gemma 3 270M, 4 of 18"):
        assert set(verdicts(model).values()) == {"**false**"}
    assert verdicts("MiniLM on SST-2, 2 of 6") == {"gbis": "**true**", "lrp": "**true**", "cim": "**false**"}
    assert set(verdicts("The starter, 3 of 12").values()) == {"not decided"}
    page = " ".join((CHOOSE / "reproduce-the-paper.md").read_text(encoding="utf-8").split())
    assert "AVSS on neurons is behind GBIS, LRP and CIM on SmolLM2 and Gemma, by divergence." in page
    assert "On MiniLM it is ahead of GBIS and LRP, which take the last blocks, and behind CIM." in page
    few_draws = "The comparisons with LRP on SmolLM2, and all on Gemma, have two draws."
    assert f"On the starter nothing is decided.** {few_draws}" in page
    pairs = {
        (amount, rival): min(len(chosen.cells()[amount].get(name, [])) for name in ("avss", rival))
        for amount in (SMOLLM2, GEMMA)
        for rival in claims.RIVALS
    }
    few = {(SMOLLM2, "lrp"): 2, (GEMMA, "gbis"): 2, (GEMMA, "lrp"): 2, (GEMMA, "cim"): 2}
    assert {pair: draws for pair, draws in pairs.items() if draws < 5} == few


def test_by_benchmarks_much_is_open() -> None:
    left = (round(100 * mean(GEMMA, name, "retained")) for name in ("depth", chosen.METHOD))
    words = "there `depth`, which removes the last blocks, retains {} % and `best` {} %."
    assert words.format(*left) in " ".join(PAGE.split())
    head, rows = choice_tables.by_task(GEMMA[0])
    by_method = {row[0].strip("`"): row[head.index("`lambada_openai`")] for row in rows}
    depth, own = (float(by_method[name].split(" → ")[1]) for name in ("depth", chosen.METHOD))
    assert depth > 2 * own
    assert "mostly [in LAMBADA]" in PAGE
    for amount, name in ((SMOLLM2, "gbis"), (SMOLLM2, "block-influence"), (GEMMA, "depth")):
        for each in (name, chosen.METHOD):
            assert len(chosen.values(chosen.cells()[amount][each], "healed", "retained")) == 2


def test_scores_cost_what_other_pages_say() -> None:
    lines = [json.loads(line)["costs"] for line in choice_tables.COSTS.read_text(encoding="utf-8").splitlines()]
    gradients = [costs[name] for costs in lines for name in ("gbis", "lrp", "taylor")]
    assert "| 2.5 to 10 |" in (CHOOSE / "importance.md").read_text(encoding="utf-8")
    assert round(min(gradients), 1) == 2.5
    assert 9.5 < max(gradients) < 10


@pytest.mark.slow
def test_a_choice_is_measured_again(tmp_path: Path) -> None:
    choices.main("starter", [3], method=["depth"], draws=1, results=tmp_path / "again.jsonl")
    (line,) = lines_in(tmp_path / "again.jsonl")
    stored = chosen.cells()[STARTER]["depth"][0]
    assert line["blocks"] == stored["blocks"]
    for state in chosen.STATES[:2]:
        expected = chosen.value(stored, state, "divergence")
        assert chosen.value(line, state, "divergence") == pytest.approx(expected, abs=2e-3)

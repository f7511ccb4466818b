"""The tables and the figure of "Which metric" come from the recipes that are kept, and bear what the page finds."""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path
from typing import Any

import chosen
import metrics_compared
import numpy as np
import pages
import pytest
import which_metric
from scipy.stats import ttest_rel
from statsmodels.stats.multitest import multipletests
from support.pictures import alike

FIGURE = pages.ROOT / "docs" / "figures" / "which-metric.svg"
CHOOSE = pages.ROOT / "docs" / "choose"
PAGE, EVIDENCE = ((CHOOSE / f"{name}.md").read_text(encoding="utf-8") for name in ("index", "evidence"))
MEASURED = [name for name in metrics_compared.TITLES if metrics_compared.results(name)]


@pytest.mark.parametrize("name", MEASURED)
def test_the_figures_are_those_of_the_recipes(name: str) -> None:
    known = which_metric.results(name)
    wanted = {part: which_metric.asked(values) for part, values in which_metric.parts(name, known).items()}
    for part, found in known.items():
        assert found["asked"] == wanted[part], f"python benchmarks/which_metric.py {name} --part {part}"


def test_every_measured_model_is_on_the_pages() -> None:
    assert set(MEASURED) == set(metrics_compared.TITLES) == {path.stem for path in which_metric.RESULTS.iterdir()}
    assert {"<!-- generated: compared models -->", "<!-- generated: choices summary -->"} <= set(PAGE.splitlines())
    for name in MEASURED:
        assert f"<!-- generated: compared methods {name} -->" in EVIDENCE
        assert f"benchmarks/which_metric.py {name} " in EVIDENCE


def test_the_figure_shows_the_numbers_that_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = FIGURE.read_text(encoding="utf-8")
    assert alike(shown, metrics_compared.picture()), f"python docs/tools/regenerate.py docs/figures/{FIGURE.name}"
    every = {name: metrics_compared.results(name) for name in MEASURED}
    (row,) = (one for one in every["starter"]["unhealed"]["rows"] if one["removed"] == 6)
    row["entries"]["lrp"]["values"] = [value - 0.05 for value in row["entries"]["lrp"]["values"]]
    monkeypatch.setattr(metrics_compared, "results", lambda name: every.get(name, {}))
    assert not alike(shown, metrics_compared.picture())


def entry(*values: float, **others: Any) -> dict[str, Any]:
    nothing = {"to_baseline": None, "stable": None, "tasks": {}, "error": None}
    return nothing | {"values": list(values)} | others


def part(healer: str, *rows: dict[str, Any], **removable: list[int]) -> dict[str, Any]:
    """A part with one scorer, whose rows remove one block and half of four."""
    named = [{"removed": 1, "share": None}, {"removed": 2, "share": 0.5}]
    return {
        "cost": {"avss": 1.25},
        "num_blocks": 4,
        "documents": {"t": 9},
        "rows": [one | {"entries": {f"avss{healer}": row}} for one, row in zip(named, rows, strict=True)],
        "removable": {label: {"counts": counts, "at_least": False} for label, counts in removable.items()},
    }


def test_a_table_has_means_with_intervals_and_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worse, better, unclear = [-0.1, 0.01], [0.1, 0.01], [0.1, 0.06]
    found = {
        "unhealed": part(
            "",
            entry(0.8, 0.9, to_baseline=worse, stable=0.5),
            entry(0.5, 0.5, stable=1.0, tasks={"t": 0.48}),
            avss=[1, 0],
        ),
        "healed": part(
            "+linear", entry(0.95, 0.95, to_baseline=better), entry(0.6, 0.6, to_baseline=unclear, tasks={"t": 0.62})
        ),
        "trained": part("+distill", entry(0.9), entry(0.7, tasks={"t": 0.75})),
    }
    found["healed"]["removable"] = {"avss+linear": {"counts": [1, 2], "at_least": True}}
    found["trained"]["rows"][1]["entries"]["avss"] = entry(0.5)
    found["chance"] = part("", entry(0.1), entry(0.2))
    found["chance"]["rows"][1]["entries"] = {"random": entry(0.4, 0.5, 0.45, 0.9)}
    lines = [json.dumps({"part": name, **one}) + "\n" for name, one in found.items()]
    (tmp_path / "starter.jsonl").write_text("".join(lines), encoding="utf-8")
    monkeypatch.setattr(metrics_compared, "RESULTS", tmp_path)

    head, [row] = metrics_compared.table("starter")
    assert head == ["method", "1 block", "50%", "blocks at 95%", "above chance", "cost", "stable"]
    # Student's t for two values: 12.706 x 0.05.
    assert row == ["`avss`", "85.0 ± 63.5 ▼ → 95.0 ▲", "50.0 → 60.0", "0.5 → ≥ 1.5", "50%", "1.2", "75%"]
    assert metrics_compared.trained("starter")[1] == [["`avss`", "50.0", "60.0", "70.0"]]
    assert metrics_compared.tasks("starter") == (["method", "`t`"], [["`avss`", "48 → 62"]])


LARGEST = {"starter": 6, "minilm-sst2": 3, "smollm2-135m": 7, "gemma-3-270m": 4}


def entries(model: str, part: str, removed: int | None = None) -> dict[str, dict[str, Any]]:
    """What was measured in a part without so many blocks, by label."""
    wanted = removed or LARGEST[model]
    rows = metrics_compared.results(model)[part]["rows"]
    (row,) = (one for one in rows if one["removed"] == wanted)
    found: dict[str, dict[str, Any]] = row["entries"]
    return found


def means(model: str, part: str, ending: str = "", removed: int | None = None) -> dict[str, float]:
    """What the methods of a part retain on average, by scorer."""
    found = entries(model, part, removed)
    labels = [label for label in found if label.partition("+")[2] == ending]
    return {label.partition("+")[0]: statistics.mean(found[label]["values"]) for label in labels}


def chances(model: str, removed: int | None = None) -> list[tuple[set[int], float]]:
    """The blocks of each random choice, and what it retains."""
    found = entries(model, "chance", removed)["random"]
    kinds = [found[kind] for kind in ("likelihood", "accuracy") if found[kind]]
    return [(set(blocks), min(ends)) for blocks, *ends in zip(found["removed"], *kinds, strict=True)]


def test_the_page_has_ten_findings_of_at_most_two_sentences() -> None:
    findings = re.findall(
        r"^\d+\. (.*?)(?=\n\d+\. |\n\n)", PAGE.partition("## Ten findings")[2], re.MULTILINE | re.DOTALL
    )
    assert len(findings) == 10
    for finding in findings:
        assert len(re.findall(r"\.(?= |\*\*|$)", finding.replace("\n", " "))) <= 3, (
            finding
        )  # its title and two sentences


def test_no_metric_is_ahead_everywhere() -> None:
    unhealed, healed = (
        [max(known, key=lambda name: known[name]) for known in (means(model, "healed", end) for model in LARGEST)]
        for end in ("", "linear")
    )
    assert len(set(unhealed)) == len(set(healed)) == len(LARGEST)
    assert healed[2] == "avss-delta"


def test_avss_is_nowhere_ahead() -> None:
    for model in LARGEST:
        for end in ("", "linear"):
            known = means(model, "healed", end)
            assert known["avss"] <= known["block-influence"]
        for part in ("unhealed", "healed"):
            for row in metrics_compared.results(model)[part]["rows"]:
                differences = [
                    one["to_baseline"] for label, one in row["entries"].items() if label.split("+")[0] == "avss"
                ]
                assert not any(mean > 0 and p is not None and p < 0.05 for mean, p in differences)
    known = means("gemma-3-270m", "healed", "linear")
    assert known["avss-delta"] == min(known.values())


def test_the_ranking_of_the_paper_does_not_hold() -> None:
    for model in ("starter", "smollm2-135m", "gemma-3-270m"):
        known = means(model, "unhealed")
        assert known["avss"] < min(known[name] for name in ("gbis", "lrp", "cim"))


def test_what_must_not_go_matters_more() -> None:
    for model, vital in {"starter": {0}, "gemma-3-270m": {3, 5}, "minilm-sst2": {5}}.items():
        without = [share for blocks, share in chances(model) if blocks & vital]
        others = [share for blocks, share in chances(model) if not blocks & vital]
        assert len(without) >= 5
        assert max(without) < 0.08
        assert min(others) > 0.15


def test_random_choices_that_keep_such_blocks_are_hard_to_beat() -> None:
    kept = [share for blocks, share in chances("starter", 3) if 0 not in blocks]
    assert min(kept) > means("starter", "unhealed", removed=3)["avss"]
    known = means("minilm-sst2", "healed", "linear")
    assert known["random"] == max(known.values())


def test_what_heals_best_is_another_choice() -> None:
    before, after = (means("smollm2-135m", "healed", end) for end in ("", "linear"))
    assert before["avss-delta"] < 0.05
    assert after["avss-delta"] == max(after.values())
    before, after = (means("gemma-3-270m", "healed", end) for end in ("", "linear"))
    assert before["depth"] < before["relative-magnitude"] == max(before.values())
    assert after["depth"] > after["relative-magnitude"]


def test_a_gap_at_the_start_stays() -> None:
    for model in ("starter", "smollm2-135m", "gemma-3-270m"):
        for scorer in ("avss-paper", "avss-reference"):
            assert all(0 in blocks for blocks in entries(model, "unhealed")[scorer]["removed"])
            assert means(model, "healed", "linear")[scorer] < 0.01


def test_training_narrows_the_gaps() -> None:
    near = 0
    for model, vital in {"starter": {0}, "minilm-sst2": set(), "smollm2-135m": {0}, "gemma-3-270m": {3, 5}}.items():
        best = max(value for name, value in means(model, "trained", "distill").items() if name != "random")
        found = entries(model, "trained")["random+distill"]
        shares = list(zip(map(set, found["removed"]), found["values"], strict=True))
        near += max(share for _, share in shares) > best - 0.01
        assert all(share < best - 0.1 for blocks, share in shares if blocks & vital)
    assert near == 3


def test_training_narrows_the_gaps_between_metrics_on_three_models() -> None:
    for model in LARGEST:
        _, rows = metrics_compared.trained(model)
        ends = [[float(row[column]) for row in rows if row[0] != "`random`"] for column in (2, 3)]
        healed, trained = (max(values) - min(values) for values in ends)
        assert (trained < healed) == (model != "gemma-3-270m")
        assert trained > 1


def test_likelihood_does_not_see_copying() -> None:
    tasks = entries("smollm2-135m", "unhealed")["gbis"]["tasks"]
    shares = [tasks[f"{text}_openings"] for text in ("pile", "hackernews", "wikipedia")]
    assert 0.75 < min(shares) < statistics.mean(shares) < 0.85
    assert tasks["copying"] < 0.01


def test_training_can_cost_copying() -> None:
    for model, scorer in {"smollm2-135m": "avss-delta", "gemma-3-270m": "perplexity"}.items():
        known = means(model, "healed", "linear")
        assert known[scorer] == max(known.values())
        before = entries(model, "healed")[f"{scorer}+linear"]["tasks"]["copying"]
        assert entries(model, "trained")[f"{scorer}+distill"]["tasks"]["copying"] < before - 0.3
    gemma = means("gemma-3-270m", "trained", "distill")
    assert max(gemma, key=lambda name: gemma[name]) == "avss"


def test_a_quarter_costs_more_than_a_tenth() -> None:
    for model, quarter in {"starter": 3, "smollm2-135m": 7, "gemma-3-270m": 4}.items():
        for part in ("healed", "window", "greedy"):
            for end in ("", "linear"):
                assert max(means(model, part, end, quarter).values()) < 0.9
    sizes = {"The starter": 3, "SmolLM2-135M": 7, "Gemma 3 270M": 4}
    reached = {
        (model, method, state)
        for (model, count, _), methods in chosen.cells().items()
        for method, lines in methods.items()
        for state in ("unhealed", "healed")
        if sizes.get(model) == count
        and (shares := [share for line in lines if (share := chosen.value(line, state, "retained")) is not None])
        and statistics.mean(shares) >= 0.9
    }
    assert reached == {("The starter", method, "unhealed") for method in (chosen.METHOD, "divergence")}
    for model in ("smollm2-135m", "gemma-3-270m"):
        assert max(means(model, "unhealed", removed=1).values()) < 0.95


def test_scores_cost_what_other_pages_say() -> None:
    costs = [metrics_compared.results(model)["unhealed"]["cost"] for model in LARGEST]
    gradients = [cost[name] for cost in costs for name in ("gbis", "lrp", "taylor")]
    assert "| 2.5 to 10 |" in (CHOOSE / "importance.md").read_text(encoding="utf-8")
    assert round(min(gradients), 1) == 2.5
    assert 9.5 < max(gradients) < 10


def test_one_pass_is_best_spent_on_block_influence() -> None:
    known = [means(model, "healed", "linear") for model in LARGEST]
    costs = metrics_compared.results("starter")["unhealed"]["cost"]
    average = {
        name: statistics.mean(one[name] for one in known)
        for name, cost in costs.items()
        if 0 < cost < 2 and name in known[0]
    }
    assert max(average, key=lambda name: average[name]) == "block-influence"


def test_no_other_method_is_significantly_ahead_of_the_recommended_one() -> None:
    cells = chosen.cells()
    assert {model for model, _, _ in cells} == {"The starter", "MiniLM on SST-2", "SmolLM2-135M"}
    for methods in cells.values():
        for name in chosen.judged_by(methods):
            for rival, difference in chosen.contrasts(methods, name).items():
                assert difference.mean > 0 or difference.p is None or difference.p >= 0.05, (name, rival)
    (larger,) = (methods for (model, count, _), methods in cells.items() if (model, count) == ("SmolLM2-135M", 7))
    copying = chosen.contrasts(larger, "copying")["block-influence"]
    assert copying.mean > 20
    assert copying.p is not None
    assert copying.p < 0.05


def test_sets_are_judged_by_both_divergences_the_nearest_first() -> None:
    head, rows = chosen.sets()
    known = {line["by"]: line for line in map(json.loads, chosen.SETS.read_text(encoding="utf-8").splitlines())}
    assert [row[0] for row in rows] == sorted(known, key=lambda name: sum(known[name]["elsewhere"]))
    for name, _, *figures in rows:
        assert figures == [f"{value:.2f}" for value in known[name]["elsewhere"]]
    assert len(head) == len(rows[0])


def test_linear_can_cost_a_task() -> None:
    (methods,) = (by for (model, count, _), by in chosen.cells().items() if (model, count) == ("The starter", 3))
    ends = [
        [line[state]["retained"]["tasks"]["starter_sentiment"]["mean"] for state in chosen.STATES]
        for line in methods[chosen.METHOD]
    ]
    lost = max(round(100 * (unhealed - healed)) for unhealed, healed in ends)
    page = (CHOOSE.parent / "repair" / "healing.md").read_text(encoding="utf-8")
    assert f"on the starter one draw lost {lost} points of sentiment" in page


def test_choices_have_a_column_for_each_model_with_one_scale() -> None:
    head, rows = chosen.summary()
    names = {model for model, _, _ in chosen.cells()}
    assert [name.partition(",")[0] for name in head[1:]] == sorted(names)
    assert all(len(row) == len(head) for row in rows)
    assert any(row[0] == "divergence, greedy" and "–" not in row for row in rows)


def test_a_model_that_was_measured_on_no_tasks_shows_its_divergence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def line(model: str, method: str, worst: float | None, far: float) -> str:
        state = {"divergence": {"mean": far}, "agreement": 0.5, "retained": worst and {"worst": {"mean": worst}}}
        asked = {"setting": "a", "model": model, "count": 2, "method": method, "seed": 0, "blocks": [3, "1/2"]}
        return json.dumps(asked | {"unhealed": state, "healed": state}) + "\n"

    (tmp_path / "choices.jsonl").write_text(
        line("smollm2", "depth", None, 1.234) + line("a", "depth", 0.75, 2.0) + line("a", "avss", 0.5, 1.0)
    )
    monkeypatch.setattr(chosen, "DATA", tmp_path / "choices.jsonl")
    assert chosen.summary() == (
        ["chosen by", "SmolLM2-135M, without 2: divergence (1 draw)", "a, without 2: retained (1 draw)"],
        [["depth", "1.23 → 1.23", "75.0 → 75.0"], ["avss", "–", "50.0 → 50.0"]],
    )
    assert chosen.table()[1][0] == ["SmolLM2-135M", "2", "depth", "1", "1.23 → 1.23", "50.0 → 50.0", "", "1/2, 3"]


def test_the_recommended_method_is_compared_by_paired_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    divergences = {
        "divergence, greedy": [0.5, 0.7, 0.6, 0.8],
        "depth": [0.9, 1.2, 1.0, 1.15],
        "random": [0.4, 0.9, 0.7, 0.65],
        "cim": [2.0],
    }

    def line(method: str, seed: int, divergence: float) -> str:
        state = {"divergence": {"mean": divergence}, "agreement": 0.5, "copying": None, "retained": None}
        cell = {"setting": "s", "model": "m", "count": 2, "method": method, "seed": seed, "blocks": [1, 2]}
        return json.dumps(cell | {"unhealed": state, "healed": state})

    lines = [line(method, *each) for method, values in divergences.items() for each in enumerate(values)]
    (tmp_path / "choices.jsonl").write_text("\n".join(lines))
    monkeypatch.setattr(chosen, "DATA", tmp_path / "choices.jsonl")
    (methods,) = chosen.cells().values()
    found = chosen.contrasts(methods, "divergence")
    own, *rivals = (np.array(values) for values in divergences.values())
    tests = [ttest_rel(rival, own) for rival in rivals[:2]]
    p = multipletests([test.pvalue for test in tests], method="holm")[1]
    for difference, test, corrected in zip((found["depth"], found["random"]), tests, p, strict=True):
        low, high = test.confidence_interval()
        assert (difference.low, difference.high, difference.p) == pytest.approx((low, high, corrected))
    assert found.keys() == {"depth", "random"}
    assert chosen.ahead()[1] == [
        ["m", "2", "depth", "–", "+0.41 ± 0.10 ▲", "–"],
        ["m", "2", "random", "–", "+0.01 ± 0.26", "–"],
    ]

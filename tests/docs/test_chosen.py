"""What methods choose: draws are merged, methods compared by paired draws, and tables show just that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import choice_tables
import choices
import chosen
import numpy as np
import pytest
import reference
from scipy.stats import norm, t, ttest_rel
from statsmodels.stats.multitest import multipletests
from support.choice_lines import keep, line, state


def test_a_draw_has_all_that_was_measured_of_its_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = line("depth", model="smollm2", count=7, healed=state(0.5))
    panel = line("depth", model="smollm2", count=7, setting="p", healed=state(0.9, 0.75), blocks=[3, 2, 1])
    trained = line("depth", model="smollm2", count=7, setting="t", trained=state(0.25))
    for lines in ([plain, panel, trained], [plain, trained, panel]):
        keep([*lines, line("depth", 1, "smollm2", 7)], tmp_path, monkeypatch)
        ((amount, methods),) = chosen.cells().items()
        assert amount == ("smollm2-135m", 7)
        whole, other = methods["depth"]
        assert [chosen.value(whole, "healed", name) for name in ("divergence", "retained")] == [0.5, 0.75]
        assert chosen.value(whole, "trained", "divergence") == 0.25
        assert chosen.value(whole, "unhealed", "retained") is None
        assert chosen.value(other, "trained", "divergence") is None
    with pytest.raises(ValueError, match="two choices of starter, 3, depth, 0"):
        chosen.merged([line("depth"), line("depth", setting="other", blocks=[4, 5, 6])])


def test_what_is_stored_was_chosen_by_the_methods_as_they_are() -> None:
    for each in map(json.loads, chosen.DATA.read_text(encoding="utf-8").splitlines()):
        assert each["recipe"] == choices.parts_of(each["method"], each["seed"], each["count"])


def test_the_recommended_method_is_compared_by_paired_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    divergences = {
        "divergence, greedy": [0.5, 0.7, 0.6, 0.8],
        "depth": [0.9, 1.2, 1.0, 1.15],
        "random": [0.4, 0.9, 0.7, 0.65],
        "cim": [2.0],
    }
    lines = [
        line(method, seed, healed=state(far)) for method, each in divergences.items() for seed, far in enumerate(each)
    ]
    keep(lines, tmp_path, monkeypatch)
    (methods,) = chosen.cells().values()
    differences = chosen.contrasts(methods, "divergence")
    own, *rivals = (np.array(each) for each in divergences.values())
    tests = [ttest_rel(rival, own) for rival in rivals[:2]]
    p = multipletests([test.pvalue for test in tests], method="holm")[1]
    for difference, test, corrected in zip((differences["depth"], differences["random"]), tests, p, strict=True):
        low, high = test.confidence_interval()
        assert (difference.low, difference.high, difference.p) == pytest.approx((low, high, corrected))
    assert differences.keys() == {"depth", "random"}
    head, rows = choice_tables.ahead("starter")
    assert head == ["without", "models", "against", "divergence, nats less"]
    assert rows == [["3", "healed", "`depth`", "+0.41 ± 0.10 ▲"], ["3", "healed", "`random`", "+0.01 ± 0.26"]]
    keep([each | {"trained": each["unhealed"]} for each in lines if each["method"] != "random"], tmp_path, monkeypatch)
    assert choice_tables.ahead("starter")[1][1] == ["3", "trained", "`depth`", "+0.00 ± 0.00"]
    (alone,) = chosen.contrasts(methods, "divergence", "random", rivals=("depth",)).values()
    assert alone.p == pytest.approx(ttest_rel(divergences["random"], divergences["depth"]).pvalue)


def three(retained: list[float], before: float = 0.5) -> list[dict[str, object]]:
    return [{"unhealed": state(2.0, before), "healed": state(1.0, share, 0.25)} for share in retained]


def test_the_summary_shows_what_is_measured_of_each_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, rival = [0.8, 0.9, 0.85], [0.6, 0.72, 0.66]
    lines = [line("divergence, greedy", seed, **each) for seed, each in enumerate(three(own))]
    lines += [line("avss", seed, **each) for seed, each in enumerate(three(rival))]
    lines += [line("avss", count=1), line("depth", **three([0.7])[0], trained=state(0.9, 0.75))]
    lines += [line("avss", model="smollm2", count=7, healed=state(0.5, copying=0.4))]
    keep(lines, tmp_path, monkeypatch)
    costs = [{"avss": 1.25, "divergence": 9.0, "depth": 0.0}, {"avss": 1.5, "depth": 0.0}]
    kept = tmp_path / "costs.jsonl"
    kept.write_text("".join(json.dumps({"model": "m", "costs": each}) + "\n" for each in costs), encoding="utf-8")
    monkeypatch.setattr(choice_tables, "COSTS", kept)
    half = float(t.ppf(0.975, 2)) / 3**0.5 * 100
    wide, far = (f"{half * float(np.std(each, ddof=1)):.1f}" for each in (own, rival))
    head, rows = choice_tables.summary()
    small = "SmolLM2-135M, 7 of 30"
    assert head == [
        *("chosen by", "cost", "The starter, 3 of 12: retained (3 draws)"),
        f"{small}: divergence, healed (1 draw); copying, healed (1 draw)",
    ]
    assert rows == [
        ["`divergence, greedy`", "–", f"50.0 → 85.0 ± {wide}", "–"],
        ["`avss`", "1.2–1.5", f"50.0 → 66.0 ± {far} ▼", "0.50; 80.0"],
        ["`depth`", "0.0", "50.0 (1) → 70.0 (1) → 75.0 (1)", "–"],
    ]
    assert choice_tables.sites()[1][:2] == [
        ["the neurons (`mlp_act`, the default)", *rows[1][2:]],
        ["what the block adds (`block_delta`)", "–", "–"],
    ]


def test_a_model_has_a_row_for_each_amount_and_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = {"blocks": ["7/8", 2, 11], "unhealed": state(2.0, 0.5, stories=0.4), "healed": state(1.0, 0.7, stories=0.8)}
    first = {"unhealed": state(2.0, 0.5, stories=0.6), "healed": state(1.0, 0.7, stories=0.6)}
    keep([line("depth", 1, **first), line("depth", **other), line("avss", count=1)], tmp_path, monkeypatch)
    head, rows = choice_tables.of_model("starter")
    assert head == ["without", "chosen by", "draws", "retained", "divergence", "stable", "blocks of the first draw"]
    assert rows == [
        ["1", "`avss`", "1", "", "1.00 → 1.00", "–", "1, 2, 3"],
        ["3", "`depth`", "2", "50.0 → 70.0", "2.00 → 1.00", "0%", "2, 7/8, 11"],
    ]
    assert choice_tables.by_task("starter") == (["chosen by", "`stories`"], [["`depth`", "50 → 70"]])


def test_a_group_is_shown_by_its_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {name: state(1.0, share, panel=share) for name, share in (("unhealed", 0.4), ("healed", 0.6))}
    told: dict[str, Any] = {name: state(1.0, 0.5, panel=0.5) for name in whole}
    for name, share in (("unhealed", 0.1), ("healed", 0.9)):
        told[name]["retained"]["parts"] = {"words": share, "grammar": 0.5}
    keep([line("avss", **whole), line("depth", **whole), line("depth", setting="p", **told)], tmp_path, monkeypatch)
    rows = [["`depth`", "10 → 90", "50 → 50"]]
    assert choice_tables.by_task("starter") == (["chosen by", "`words`", "`grammar`"], rows)
    ((_, methods),) = chosen.cells().items()
    assert chosen.value(methods["depth"][0], "healed", "retained") == 0.6, "the first line counts"


def test_a_page_says_why_there_is_no_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep([line("divergence, greedy"), line("depth")], tmp_path, monkeypatch)
    assert reference.expanded("<!-- generated: choices ahead starter -->") == "Too few draws yet."
    assert reference.expanded("<!-- generated: choices ahead smollm2-135m -->") == "Not measured yet."


def test_costs_of_the_method_are_those_that_are_kept() -> None:
    head, rows = choice_tables.searches()
    lines = list(map(json.loads, choice_tables.SEARCHES.read_text(encoding="utf-8").splitlines()))
    assert len(rows) == len(lines)
    for costs in lines:
        shown = {head[place]: [row[place] for row in rows] for place in range(1, len(head))}
        for name, key in zip(head[1:], ("divergence", "perplexity", "linear"), strict=True):
            passes = f"{costs[key]['passes']:.0f}, for "
            assert any(cell.startswith(passes) for cell in shown[name])


def lower_mean(lines: chosen.Lines, name: str) -> float:
    """What models retain over all draws: the lower of the means over likelihoods and over accuracies."""
    shares = [each[name]["retained"] for each in lines]
    kinds = ("likelihood", "accuracy")
    return min(float(np.mean([share[kind]["mean"] for share in shares])) for kind in kinds if shares[0][kind])


def test_differences_by_documents_are_those_of_the_stored_draws() -> None:
    stored = chosen.by_documents()
    assert {(model, count) for model, count, *_ in stored} == {
        amount for amount in chosen.cells() if amount[0] not in chosen.PANEL
    }
    for (model, count, own, rival, healed), difference in stored.items():
        methods = chosen.cells()[model, count]
        ours, theirs = (lower_mean(methods[name], healed) for name in (own, rival))
        assert difference.mean == pytest.approx(100 * (ours - theirs), abs=0.1)


def test_documents_count_beside_the_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [line("divergence, greedy", seed, healed=state(0.5, stderr=0.03)) for seed in range(3)]
    lines += [line("depth", seed, healed=state(0.6, stderr=0.04)) for seed in range(3)]
    keep(lines, tmp_path, monkeypatch)
    (methods,) = chosen.cells().values()
    difference = chosen.contrasts(methods, "divergence")["depth"]
    assert difference.low == pytest.approx(0.1 - norm.ppf(0.975) * 0.05)
    assert difference.p == pytest.approx(2 * norm.sf(2))
    pair = {"model": "starter", "count": 3, "method": "divergence, greedy", "rival": "depth", "state": "healed"}
    known = pair | {"mean": 0.2, "low": 0.1, "high": 0.3, "p": 0.01}
    (tmp_path / "choices_pairs.jsonl").write_text(json.dumps(known) + "\n", encoding="utf-8")
    keep([each | {"healed": state(0.5, 0.7)} for each in lines], tmp_path, monkeypatch)
    (methods,) = chosen.cells().values()
    paired = chosen.contrasts(methods, "retained")["depth"]
    assert (paired.mean, paired.low, paired.high, paired.p) == (20.0, 10.0, 30.0, 0.01)
    assert chosen.contrasts(methods, "retained", state="unhealed") == {}
